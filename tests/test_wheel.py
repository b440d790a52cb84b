"""What is released works where the checkout is not: a wheel, in an environment of its own.

One environment is made for the whole module, with the pinned versions and only what the wheel
itself asks for, so a dependency that is missing in setup.py is found too. This takes a minute.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]

PRODUCTS = ('Products/zasync', 'Products/zasyncdispatcher', 'Products/CPSMailAccess')
PACKAGES = (*PRODUCTS, 'zasync_client')

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def environment():
    """Our environment variables without those that would let Python find the checkout."""
    return {name: value for name, value in os.environ.items()
            if name not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'PYTHONSTARTUP')}


def run(*command, cwd, seconds=60, **options):
    """Run a command to its end; its standard output. Fails the test with what it said."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment(),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds, **options)
    assert done.returncode == 0, f'{command} ended with {done.returncode}:\n{done.stderr}'
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Path of a wheel, built from a copy of the sources: nothing is left in the checkout."""
    base = tmp_path_factory.mktemp('wheel')
    source = base / 'source'
    source.mkdir()
    skipped = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, source)
        elif path.name in ('Products', 'zasync_client', 'bench', 'docs', 'etc', 'tests'):
            shutil.copytree(path, source / path.name, ignore=skipped)
    run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '-w', base, source,
        cwd=base, seconds=200)
    (built,) = base.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """The bin directory of an environment that has the wheel, and nothing else of ours."""
    base = tmp_path_factory.mktemp('installed')
    venv.create(base, with_pip=True)
    run(base / 'bin/python', '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check',
        '-c', ROOT / 'constraints.txt', f'zasync[mail] @ {wheel.as_uri()}', cwd=base,
        seconds=280)
    return base / 'bin'


@pytest.fixture
def python(installed, tmp_path):
    """Run a Python program in that environment, outside the checkout; its standard output."""
    def program(text, *arguments, seconds=60):
        return run(installed / 'python', '-W', 'ignore', '-c', textwrap.dedent(text), *arguments,
                   cwd=tmp_path, seconds=seconds)
    return program


def sources():
    """Every file of the packages, as a wheel names them."""
    return {path.relative_to(ROOT).as_posix()
            for package in PACKAGES for path in (ROOT / package).rglob('*')
            if path.is_file() and path.suffix not in ('.pyc', '.pyo')}


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    content = {name for name in names if '.dist-info/' not in name}
    assert content == sources()
    assert all(f'{package}/py.typed' in content for package in PACKAGES)
    assert 'Products/__init__.py' not in content


def test_the_wheel_says_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
    text = archive.read(metadata).decode()
    assert re.search(r'^Name: zasync$', text, re.M)
    assert re.search(r'^License: ZPL 2\.1$', text, re.M)
    assert any(name.endswith('LICENSE.txt') for name in archive.namelist())


def test_the_version_is_said_alike_everywhere(wheel):
    import zasync_client
    docs = (ROOT / 'docs/conf.py').read_text('utf-8')
    assert wheel.name.split('-')[1] == zasync_client.__version__
    assert f"release = '{zasync_client.__version__}'" in docs


def test_the_command_explains_itself(installed, tmp_path):
    assert '-C' in run(installed / 'zasync_client', '--help', cwd=tmp_path)


def test_an_add_on_is_checked_against_the_types_of_the_wheel(installed, tmp_path):
    for name in ('addon', 'mistakes'):
        shutil.copy(ROOT / f'tests/typed/{name}.py', tmp_path)
    mypy = [sys.executable, '-m', 'mypy', '--strict', '--python-executable', installed / 'python',
            '--config-file', os.devnull, '--cache-dir', tmp_path / 'cache']
    run(*mypy, 'addon.py', cwd=tmp_path)
    told = subprocess.run([*mypy, 'mistakes.py'], cwd=tmp_path, env=environment(), text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    wrong = (tmp_path / 'mistakes.py').read_text('utf-8').count('# mistake: ')
    assert f'Found {wrong} errors in 1 file' in told.stdout, told.stdout + told.stderr


def test_nothing_comes_from_the_checkout(python):
    out = python('''
        import Products, Products.CPSMailAccess, Products.zasync, Products.zasyncdispatcher
        import pkgutil, zasync_client
        print(*Products.__path__, zasync_client.__file__, sep='\\n')
        print(*(module.name for module in pkgutil.iter_modules(Products.__path__)))
        ''')
    assert str(ROOT) not in out
    names = out.splitlines()[-1].split()
    assert {'zasync', 'zasyncdispatcher', 'CPSMailAccess', 'OFSP'} <= set(names)


@pytest.fixture
def zeo(installed, tmp_path):
    """A ZEO server on a free port with a new database; its address."""
    # The port is free when asked for and taken a moment later: good enough for one server.
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = '127.0.0.1:%d' % probe.getsockname()[1]
    server = subprocess.Popen(
        [installed / 'runzeo', '-a', address, '-f', tmp_path / 'Data.fs'], cwd=tmp_path,
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    yield address
    server.terminate()
    server.wait(20)


@pytest.fixture
def zope_conf(installed, zeo, tmp_path):
    """The zope.conf of an instance made by Zope's own command, a client of that server."""
    home = tmp_path / 'instance'
    run(installed / 'mkwsgiinstance', '-d', home, '-u', 'admin:secret', cwd=tmp_path)
    path = home / 'etc' / 'zope.conf'
    path.write_text(textwrap.dedent(f'''\
        instancehome {home}
        <zodb_db main>
          mount-point /
          <zeoclient>
            server {zeo}
          </zeoclient>
        </zodb_db>
        '''), 'utf-8')
    return path


START = '''
import sys, transaction, Zope2
from Zope2.Startup.run import make_wsgi_app
wsgi = make_wsgi_app({}, sys.argv[1])
app = Zope2.app()
'''


def test_zope_offers_our_objects_for_adding(python, zope_conf):
    from Products.CPSMailAccess.mailtool import MailTool
    from Products.zasync.manager import AsynchronousCallManager
    from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
    out = python(START + textwrap.dedent('''
        from base64 import b64encode
        from wsgiref.util import setup_testing_defaults
        environ = {'PATH_INFO': '/manage_main',
                   'HTTP_AUTHORIZATION': 'Basic ' + b64encode(b'admin:secret').decode()}
        setup_testing_defaults(environ)
        answer = []
        page = b''.join(wsgi(environ, lambda status, headers, *rest: answer.append(status)))
        print(answer[0])
        print(page.decode())
        '''), zope_conf)
    assert out.startswith('200'), out[:2000]
    for cls in (AsynchronousCallManager, ZAsyncDispatcher, MailTool):
        assert cls.meta_type in out


def test_zope_starts_without_the_mail_extra(python, zope_conf):
    """An error while a product is set up would keep the whole of Zope from starting."""
    out = python('import sys; sys.modules["imapclient"] = None\n' + START + textwrap.dedent('''
        print(*(offer['name'] for offer in app.all_meta_types()), sep='\\n')
        '''), zope_conf)
    assert 'Asynchronous Call Dispatcher' in out.splitlines()


def test_a_worker_from_the_wheel_runs_a_call(installed, python, zope_conf, tmp_path):
    python(START + textwrap.dedent('''
        from Products.zasync.manager import AsynchronousCallManager
        app._setObject('zam', AsynchronousCallManager('zam'))
        transaction.commit()
        '''), zope_conf)
    conf = tmp_path / 'zasync.conf'
    conf.write_text(f'%include {zope_conf}\ntarget /zam\nthreads 1\n', 'utf-8')
    with open(tmp_path / 'worker.log', 'w') as log:
        worker = subprocess.Popen([installed / 'zasync_client', '-C', conf], cwd=tmp_path,
                                  env=environment(), stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT)
        try:
            out = python(START + textwrap.dedent('''
                import threading
                from AccessControl.SecurityManagement import newSecurityManager
                users = app.acl_users
                newSecurityManager(None, users.getUserById('admin').__of__(users))
                call = app.zam.putCall('zope_exec', '/', {'a': 20}, 'python: request.a + 22')
                transaction.commit()
                tick = threading.Event()
                for turn in range(300):
                    transaction.begin()
                    if call.ended:
                        break
                    tick.wait(0.1)
                print(call.state, call.result, call.failure)
                '''), zope_conf)
        finally:
            worker.terminate()
            try:
                code = worker.wait(40)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
                raise
    said = (tmp_path / 'worker.log').read_text('utf-8')
    assert out.split()[:2] == ['resolved', '42'], f'{out}\n{said}'
    assert code == 0, said
