"""The documents say what is so: their commands run, their links lead somewhere, their names exist.

The tutorial is run as it stands: its files are written, its programs started, its forms sent and
its prompt typed into, on free ports and in an empty directory. Only the environment it installs is
the one of the tests.
"""

import ast
import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest
import requests
from packaging.specifiers import SpecifierSet
from zope.interface.interfaces import IInterface

from bench.lines import LINES
from bench.processes import accepts
from bench.processes import free_port
from bench.processes import Process
from bench.processes import wait_until
from Products.zasync import errors
from Products.zasync import interfaces
from Products.zasync import lifecycle
from Products.zasync.zmi import managerforms
from Products.zasyncdispatcher.interfaces import IAsynchronousCallDispatcher
from Products.zasyncdispatcher.zmi.managersforms import MOST_MANAGERS
from zasync_client import config


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
TOP = [ROOT / name for name in ('README.rst', 'CHANGES.rst', 'CONTRIBUTING.rst')]
PAGES = sorted(DOCS.glob('*.rst')) + sorted((DOCS / 'adr').glob('*.rst'))


def text_of(path):
    return path.read_text('utf-8')


def everything():
    """All documents in one text."""
    return '\n'.join(map(text_of, TOP + PAGES))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


# links and references

@pytest.mark.parametrize('path', TOP, ids=name_of)
def test_every_relative_link_leads_to_a_file(path):
    links = re.findall(r'<([^<>\s]+)>`_', text_of(path))
    assert [link for link in links if '://' not in link and not (ROOT / link).exists()] == []


def roles(text, role):
    """What a role refers to, in all its uses in the text."""
    for content in re.findall(rf':{role}:`([^`]+)`', text):
        yield ' '.join((re.search(r'<([^<>]+)>$', content) or [None, content])[1].split())


@pytest.mark.parametrize('path', PAGES, ids=name_of)
def test_every_reference_to_a_page_a_term_or_a_directive_resolves(path):
    text = text_of(path)
    assert [page for page in roles(text, 'doc')
            if not (path.parent / f'{page}.rst').exists()] == []
    assert set(roles(text, 'term')) <= set(glossary_terms())
    assert set(roles(text, 'confval')) <= set(directives())


def test_every_page_is_reached_from_the_index():
    entries = re.findall(r'^   ([\w/*-]+)$', text_of(DOCS / 'index.rst'), re.M)
    reached = {path for entry in entries for path in DOCS.glob(f'{entry}.rst')}
    assert reached == set(PAGES) - {DOCS / 'index.rst'}


#: Files of the tutorial's own instance, and one that is named because it must not be there.
NOT_HERE = {'etc/zam1.conf', 'etc/zam2.conf', 'Products/__init__.py'}


@pytest.mark.parametrize('path', TOP[:2] + PAGES, ids=name_of)
def test_every_file_of_the_repository_that_is_named_is_there(path):
    named = set(re.findall(r'``((?:etc|docs|tests|Products|zasync_client|bench)/[\w@./-]*)``',
                           text_of(path)))
    assert {name for name in named - NOT_HERE if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize('path', TOP + PAGES, ids=name_of)
def test_every_title_is_underlined_to_its_end(path):
    titles = re.findall(r'^(\S.*)\n((?:=|-|~){3,})$', text_of(path), re.M)
    assert titles and [title for title, line in titles if len(line) < len(title)] == []


def test_the_page_of_three_hosts_names_no_file_that_they_do_not_have():
    named = set(re.findall(r'[\w/-]+\.conf\b', text_of(DOCS / 'hosts.rst')))
    there = {path.name for path in (ROOT / 'etc/hosts').rglob('*.conf')}
    assert {name for name in named if Path(name).name not in there} == set()


def test_no_document_leaves_something_for_later():
    assert re.findall(r'\b(?:TODO|TBD|FIXME|XXX)\b|\bto be (?:filled|written)\b',
                      everything()) == []


# glossary, states, permissions

def glossary_terms():
    return re.findall(r'^   (\S.*)$', text_of(DOCS / 'glossary.rst').split('.. glossary::')[1],
                      re.M)


def test_the_terms_of_the_glossary_are_unique_and_in_order():
    terms = glossary_terms()
    assert terms == sorted(set(terms))


def test_the_life_of_a_call_is_drawn_as_the_code_draws_it():
    drawn = [line.strip() for line in lifecycle.__doc__.splitlines() if re.search('[▶▲└]', line)]
    page = [line.strip() for line in text_of(DOCS / 'lifecycle.rst').splitlines()]
    assert drawn and [line for line in drawn if line not in page] == []
    assert [state for state in interfaces.STATES
            if not any(line.startswith(f'{state} ') for line in page)] == []


def test_every_permission_is_explained():
    page = text_of(DOCS / 'security.rst')
    for package in ('zasync', 'CPSMailAccess'):
        module = importlib.import_module(f'Products.{package}.permissions')
        for name, value in vars(module).items():
            if name[0].isupper() and isinstance(value, str):
                assert value in page


def test_every_action_that_answers_to_post_is_named():
    actions = {name for path in (ROOT / 'Products').rglob('*.py')
               for name in re.findall(r"@zpublish\(methods='POST'\)\n(?:\s*@.*\n)*\s*def (\w+)",
                                      text_of(path)) if name.startswith('manage_')}
    page = text_of(DOCS / 'security.rst')
    assert {name for name in actions if f'``{name}``' not in page} == set()


# configuration

def schema_keys():
    """{name: (default, None for none; is it required)}, those of sections as section.key.

    Those of a worker inside Zope are not told again.
    """
    schema = ElementTree.parse(ROOT / 'zasync_client/schema.xml').getroot()
    keys = {}
    for kind, prefix in [(schema, ''), *((kind, kind.get('name').removeprefix('historic.') + '.')
                                         for kind in section_types().values()
                                         if kind.find('*/description') is not None)]:
        keys.update(keys_of(kind, prefix))
    return keys


def keys_of(parent, prefix=''):
    return {prefix + key.get('name'): (key.get('default'), key.get('required') == 'yes')
            for key in parent.findall('key') + parent.findall('multikey')}


def section_types():
    """{name: element} of the section types of ours."""
    return {kind.get('name'): kind for name in ('schema', 'component') for kind in
            ElementTree.parse(ROOT / f'zasync_client/{name}.xml').getroot().findall('sectiontype')}


#: Directives of Zope's own that the old contract names, and what they need to make sense.
OF_ZOPE = {'instancehome', 'clienthome', 'security-policy-implementation',
           'skip-authentication-checking', 'skip-ownership-checking'}


def directives():
    """{name: default as the page says it}."""
    return dict(re.findall(r'^\.\. confval:: (\S+)\n(?:   :type: .*\n)?   :default: (.*)$',
                           text_of(DOCS / 'configuration.rst'), re.M))


def test_every_directive_of_the_schema_has_an_entry_and_no_other_has():
    assert set(directives()) == set(schema_keys()) | OF_ZOPE


def test_the_page_of_the_configuration_is_what_the_schema_makes_of_it():
    spec = importlib.util.spec_from_file_location('configuration', DOCS / 'configuration.py')
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert text_of(DOCS / 'configuration.rst') == maker.page(), 'run python docs/configuration.py'


def test_every_directive_of_zope_is_named():
    from zasync_client.schema import schema
    page = text_of(DOCS / 'configuration.rst')
    assert [name for name, _ in schema() if name and name not in '+*'
            and name not in directives() and f'``{name}``' not in page] == []


def test_the_directives_of_a_worker_inside_zope_are_told_and_are_those_of_a_worker():
    told = text_of(DOCS / 'configuration.rst').split('A worker inside Zope\n---')[1]
    keys = keys_of(section_types()['zasync-worker'])
    assert [name for name in keys if f'``{name}``' not in told.split('\n---')[0]] == []
    assert keys.pop('threads') == ('2', False)
    assert keys.items() <= schema_keys().items()


def test_the_largest_numbers_that_the_forms_take_are_told():
    settings = text_of(DOCS / 'configuration.rst').split('Settings of a manager\n---')[1]
    settings = settings.split('\n---')[0]
    assert f' {managerforms.LONGEST_POLL:,} at most' in ' '.join(settings.split())
    assert f' {managerforms.LONGEST_ROTATION:,}, ten years, at most' in ' '.join(settings.split())
    assert f'1 to {MOST_MANAGERS} at once' in text_of(DOCS / 'operations.rst')


def test_the_database_in_postgresql_is_one_that_a_worker_can_have(tmp_path):
    page = text_of(DOCS / 'configuration.rst').split('A database in PostgreSQL\n~~~')[1]
    lines = re.search(r'::\n\n((?: {4}.*\n)+)', page)[1]
    path = tmp_path / 'zasync.conf'
    path.write_text(f'instancehome {tmp_path}\n{textwrap.dedent(lines)}', 'utf-8')
    [database] = config.load(str(path)).zope.databases
    adapter = database.config.storage.config.adapter
    assert adapter.config.dsn == 'host=127.0.0.1 port=5432 user=zope dbname=zope'


@pytest.mark.parametrize('name', sorted(schema_keys()))
def test_a_default_is_what_the_page_says(name):
    default, required = schema_keys()[name]
    expected = ('none, required' if required else 'none' if default is None
                else f'``{default}``' if default else 'empty')
    assert directives()[name] == expected


# reference

ENTRY = re.compile(r'^( *)\.\. py:(\w+):: ((?:.*\\\n)*.*)$', re.M)


def reference_entries():
    """[(kind, module, qualified name, signature or None)] in the order of the page."""
    module, owner, found = None, None, []
    for indent, kind, content in ENTRY.findall(text_of(DOCS / 'reference.rst')):
        content = ' '.join(content.replace('\\\n', '').split())
        name, _, signature = content.partition('(')
        if kind in ('module', 'currentmodule'):
            module = name
            continue
        if indent:
            name = f'{owner}.{name}'
        else:
            owner = name
        found.append((kind, module, name, f'({signature}' if signature else None))
    return found


@pytest.mark.parametrize('kind, module, name, signature', reference_entries(),
                         ids=lambda value: value if isinstance(value, str) else '')
def test_a_name_of_the_reference_exists_with_its_signature(kind, module, name, signature):
    owner, target = None, importlib.import_module(module)
    for part in name.split('.'):
        owner, target = target, member(target, part)
    if kind == 'exception':
        assert issubclass(target, Exception)
    elif signature is not None:
        assert signature == signature_of(owner, target)
    else:
        assert kind in ('attribute', 'data', 'class')


def member(owner, name):
    if isinstance(owner, type) and name in getattr(owner, '__dataclass_fields__', ()):
        return owner.__dataclass_fields__[name]
    if IInterface.providedBy(owner):
        return owner[name]
    return getattr(owner, name)


def signature_of(owner, target):
    """The signature as a caller sees it, without annotations."""
    if IInterface.providedBy(owner):
        return target.getSignatureString()
    found = inspect.signature(target)
    parameters = [parameter.replace(annotation=parameter.empty)
                  for parameter in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


def test_the_reference_is_complete():
    names = {name for _, _, name, _ in reference_entries()}
    contracts = [interfaces.IAsynchronousCallManager, interfaces.IPeriodicCalls,
                 interfaces.IDeferred, interfaces.IRun, interfaces.IPlugin,
                 IAsynchronousCallDispatcher]
    missing = [f'{contract.__name__}.{name}' for contract in contracts for name in contract
               if f'{contract.__name__}.{name}' not in names]
    missing += [name for name, value in vars(errors).items()
                if inspect.isclass(value) and value.__module__ == errors.__name__
                and name not in names]
    assert missing == []


# architecture

PACKAGES = {'Products/zasync', 'Products/zasyncdispatcher', 'zasync_client',
            'Products/CPSMailAccess'}


@pytest.mark.parametrize('package', sorted(PACKAGES))
def test_the_map_shows_every_module_and_no_other(package):
    section = re.split(rf'^{package}\n-+$', text_of(DOCS / 'architecture.rst'), flags=re.M)[1]
    section = re.split(r'^\S.*\n-{3,}$', section, flags=re.M)[0]
    shown = set(re.findall(r'``(\w+\.py)``', section))
    there = {path.name for path in (ROOT / package).glob('*.py')}
    assert shown == there - {'__init__.py', '__main__.py'}


# dependencies, make, bench

def requirements():
    """{extra or '': names of distributions} as setup.py has them."""
    tree = ast.parse(text_of(ROOT / 'setup.py'))
    names = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.List, ast.BinOp)):
            exec(compile(ast.Module([node], []), 'setup.py', 'exec'), names)
    call = next(node.value for node in tree.body if isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Call))
    values = {keyword.arg: eval(compile(ast.Expression(keyword.value), 'setup.py', 'eval'), names)
              for keyword in call.keywords if keyword.arg.endswith('require')
              or keyword.arg == 'install_requires'}
    lists = {'': values['install_requires'], **values['extras_require']}
    return {extra: {re.split(r'[ <>=!~;]', item)[0] for item in items}
            for extra, items in lists.items()}


def test_every_dependency_earns_its_place_in_one_line():
    page = text_of(DOCS / 'dependencies.rst')
    always, by_extra = page.split('By extras\n')
    wanted = requirements()
    assert sorted(re.findall(r'^([\w.]+)  +\S', always, re.M)) == sorted(wanted.pop(''))
    rows = re.findall(r'^``(\w+)`` +(\S+)  +\S', by_extra, re.M)
    inherited = {'demo': wanted['mail'],
                 'test': wanted['demo'] | wanted['sessions'] | wanted['metrics'],
                 'docs': set()}
    assert sorted(rows) == sorted((extra, name) for extra, names in wanted.items()
                                  for name in names - inherited.get(extra, set()))


def test_every_extra_that_is_named_exists():
    named = set(re.findall(r"[.\w]\[(\w+)\]'", everything()))
    assert named and named <= set(requirements())


def test_every_pin_is_for_the_oldest_python_too():
    oldest = re.search(r"python_requires='>= ([\d.]+)'", text_of(ROOT / 'setup.py'))[1] + '.0'
    wanted = {found.metadata['Name']: found.metadata.get('Requires-Python', '')
              for found in importlib.metadata.distributions()}
    assert {name: python for name, python in wanted.items()
            if oldest not in SpecifierSet(python)} == {}


def make_targets():
    return set(re.findall(r'(?:``|\$ )(?:[A-Z_]+=\w+ )*make ([a-z][\w-]*)', everything()))


def test_every_make_target_that_is_named_exists():
    assert {'demo', 'test', 'check', 'bench', 'docs'} <= make_targets()
    for target in make_targets():
        done = subprocess.run(['make', '-n', target], cwd=ROOT, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 0, done.stderr


def test_every_line_of_the_benchmark_is_explained_and_no_other():
    page = text_of(DOCS / 'performance.rst')
    assert set(re.findall(r'^``(\w+)``\n    \S', page, re.M)) == set(LINES)
    assert set(re.findall(r'ONLY=(\w+)', everything())) <= set(LINES)


# the tutorial

STEP = re.compile(r'^\.\. code-block:: (\w+)\n((?:   :\w+: .*\n)*)\n((?:   .*\n|\n)+)|(Ctrl-C)',
                  re.M)
SERVERS = {'runzeo': '8100', 'runwsgi': '8080', 'pymap': '1143'}
PROMPT_SECONDS = 60


class Console:
    """A prompt inside Zope, typed into by a program."""

    END = '~~ end of output ~~'

    def __init__(self, argv, cwd, env):
        self._process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.say('')

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def say(self, source):
        """Type it; → what is printed for it."""
        self._process.stdin.write(f'{source}\n\nprint({self.END!r})\n')
        self._process.stdin.flush()
        lines = []
        while True:
            line = self._lines.get(timeout=PROMPT_SECONDS)
            assert line is not None, f'the prompt has gone: {lines}'
            # Prompts are on standard error, and so are tracebacks.
            line = re.sub(r'^(?:(?:>>>|\.\.\.) )+', '', line)
            if line.strip() == self.END:
                return ''.join(lines)
            lines.append(line)

    def check(self, examples):
        """Type doctest examples; each prints what it should."""
        for example in examples:
            said = self.say(example.source)
            assert doctest.OutputChecker().check_output(
                example.want, said, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE), (
                    f'{example.source}printed {said!r}, not {example.want!r}')

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._reader.join(20)
            self._process.stdout.close()


class Tutorial:
    """Does what the page says, one step after another."""

    def __init__(self, directory):
        self.directory = directory
        self.console = None
        self.processes = []
        self.ports = {port: str(free_port()) for port in SERVERS.values()}
        self.env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1',
                    'PWD': str(directory)}

    def with_ports(self, text):
        for port, free in self.ports.items():
            text = text.replace(port, free)
        return text

    def run(self):
        for language, options, content, stop in STEP.findall(text_of(DOCS / 'tutorial.rst')):
            if stop:
                self.interrupt()
                continue
            content = self.with_ports(re.sub(r'^   ', '', content, flags=re.M))
            caption = re.search(r':caption: (.*)', options)
            if language == 'console':
                for line in re.sub(r'\\\n\s*', '', content).splitlines():
                    if line.startswith('$ '):
                        self.command(shlex.split(line[2:]))
            elif language == 'pycon':
                self.console.check(doctest.DocTestParser().get_examples(content))
            elif language == 'python':
                self.script(content)
            else:
                (self.directory / caption[1]).write_text(content, 'utf-8')

    def command(self, argv):
        program, bin = argv[0].removeprefix('env/bin/'), Path(sys.executable).parent
        if program in ('mkdir', 'cd', 'python3', 'pip'):
            return
        if program == 'curl':
            self.curl(argv[1:])
        elif program == 'mkwsgiinstance':
            subprocess.run([bin / program, *argv[1:]], cwd=self.directory, env=self.env,
                           check=True, stdin=subprocess.DEVNULL, timeout=60)
            ini = self.directory / 'etc/zope.ini'
            ini.write_text(self.with_ports(text_of(ini)), 'utf-8')
        elif program == 'zconsole':
            self.console = Console([bin / program, *argv[1:]], self.directory, self.env)
        elif program == 'zasync_client' and (argv[1] == 'key' or len(argv) > 3):
            subprocess.run([sys.executable, '-m', program, *argv[1:]], cwd=self.directory,
                           env=self.env, check=True, stdin=subprocess.DEVNULL, timeout=60)
        elif program == 'zasync_client':
            self.start([sys.executable, '-m', program, *argv[1:]],
                       lambda process: ' serves ' in process.output())
        else:
            port = int(self.ports[SERVERS[program]])
            self.start([bin / program, *argv[1:]], lambda _: accepts('127.0.0.1', port))

    def start(self, argv, is_ready):
        process = Process(Path(argv[0]).name, argv, self.directory / f'{len(self.processes)}.log',
                          is_ready=is_ready, ready_seconds=60, env=self.env, cwd=self.directory)
        self.processes.append(process)
        process.start()

    def interrupt(self):
        """Ctrl-C for the program that was started last."""
        os.kill(self.processes[-1].pid, signal.SIGINT)
        assert self.processes[-1].wait(40) == 0

    def curl(self, argv):
        url = argv.pop()
        values = dict(zip(argv[::2], argv[1::2], strict=True))
        data = [pair for name, value in zip(argv[::2], argv[1::2], strict=True) if name == '-d'
                for pair in parse_qsl(value, keep_blank_values=True)]
        user, _, password = values['-u'].partition(':')

        def ask():
            return requests.request('POST' if data else 'GET', url, data=data, timeout=30,
                                    auth=(user, password), allow_redirects=False)

        before = self.last_transaction()
        answer = ask()
        assert answer.status_code in ((302,) if data else (200,)), answer.text
        if data and before:  # the news of it travels
            assert wait_until(lambda: self.last_transaction() != before, 30)
        if url.endswith('manage_syncStatus'):
            assert wait_until(lambda: ask().json()['state'] not in ('queued', 'running'), 60)
            assert ask().json()['state'] == 'done', ask().text

    def last_transaction(self):
        """The last one that the prompt has heard of; None if there is no prompt."""
        return self.console and self.console.say('print(app._p_jar.db().lastTransaction())')

    def script(self, body):
        """Run the body of a Script (Python) as restricted code."""
        said = self.console.say('exec(%r)' % f'''
from RestrictedPython import compile_restricted_function
from AccessControl.ZopeGuards import get_safe_globals, guarded_getattr
made = compile_restricted_function('', {body!r}, 'script', globalize=['context'])
names = dict(get_safe_globals(), _getattr_=guarded_getattr, context=app)
exec(made.code, names)
print(made.errors, names['script']())
transaction.commit()
''')
        assert re.fullmatch(r'\(\) zam[12] runs [\da-f-]+', said.strip()), said

    def close(self):
        if self.console is not None:
            self.console.close()
        for process in reversed(self.processes):
            process.stop()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(re.search(r'[^\w@%+=:,./-]', sys.executable) is not None,
                    reason='zconsole debug does not start with such a path')
def test_the_tutorial_and_the_prompt_of_the_readme_do_what_they_say(tmp_path):
    tutorial = Tutorial(tmp_path)
    try:
        tutorial.run()
        tutorial.console.check(doctest.DocTestParser().get_examples(text_of(ROOT / 'README.rst')))
    finally:
        tutorial.close()
