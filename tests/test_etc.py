"""The samples in etc/ are read by the programs they are for, and a directive shown there works.

The samples are for an instance in /srv/zope; here they are read with that line changed to a
directory that exists.
"""

import configparser
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ZEO.runzeo import ZEOOptions
from Zope2.Startup.options import ZopeWSGIOptions

import Products
from tests import certificates
from tests.test_docs import OF_ZOPE
from zasync_client import config
from zasync_client.errors import ConfigurationError


ETC = Path(__file__).resolve().parents[1] / 'etc'

#: The line every ZConfig sample starts with, and the only one that names a place.
DEFINE = '%define INSTANCE /srv/zope'

#: A directive that is out of use in a sample: a bare "#" and a name, no space between them.
COMMENTED = re.compile(r'#[</%\w]|#  +[</\w]')


@pytest.fixture
def instance(tmp_path):
    """The directories a fresh instance has."""
    for name in ('etc', 'var/blobs', 'var/cache', 'log', 'lib', 'Products'):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def placed(name, instance, text=None):
    """Write the sample `name` (or `text` in its place) into the instance; its path."""
    text = (ETC / name).read_text('utf-8') if text is None else text
    assert text.count(DEFINE) == 1, f'{name} must say {DEFINE!r} once'
    path = instance / 'etc' / name
    path.write_text(text.replace(DEFINE, f'%define INSTANCE {instance}'), 'utf-8')
    return path


def commented_blocks(text):
    """The directives a sample shows commented out: a list of lists of line numbers.

    A section counts as one, from its opening to its closing line.
    """
    blocks, section, end = [], None, None
    for number, line in enumerate(text.splitlines()):
        if not COMMENTED.match(line):
            continue
        if section is not None:
            section.append(number)
            if line == end:
                blocks.append(section)
                section = None
        elif line.startswith('#<'):
            section, end = [number], f"#</{re.match('#<([a-z-]+)', line).group(1)}>"
        else:
            blocks.append([number])
    assert section is None, 'a commented section does not end'
    return blocks


def with_block(text, block):
    """The text with the directive in these lines in use."""
    lines = text.splitlines()
    for number in block:
        lines[number] = lines[number].removeprefix('#')
    return '\n'.join(lines) + '\n'


def test_zeo_conf_is_read_by_runzeo(instance):
    options = ZEOOptions()
    options.realize(['-C', str(placed('zeo.conf', instance))])
    assert options.address == ('127.0.0.1', 8100)
    assert [storage.name for storage in options.storages] == ['1']


def test_zope_conf_is_read_by_zope(instance):
    options = ZopeWSGIOptions(str(placed('zope.conf', instance)))()
    assert options.configroot.instancehome == str(instance)
    assert [database.name for database in options.configroot.databases] == ['main']


def test_zope_ini_serves_the_zope_conf_beside_it_with_four_threads():
    parser = configparser.ConfigParser()
    parser.read_string((ETC / 'zope.ini').read_text('utf-8'))
    parser.set('DEFAULT', 'here', str(ETC))
    assert Path(parser.get('app:zope', 'zope_conf')) == ETC / 'zope.conf'
    assert parser.getint('server:main', 'threads') == 4
    assert parser.get('pipeline:main', 'pipeline').split()[-1] == 'zope'


def test_zope_ini_has_every_part_of_its_logging():
    parser = configparser.RawConfigParser()
    parser.read_string((ETC / 'zope.ini').read_text('utf-8'))
    for kind in ('logger', 'handler', 'formatter'):
        for name in parser.get(f'{kind}s', 'keys').split(','):
            assert parser.has_section(f'{kind}_{name.strip()}')


def test_zasync_conf_is_read_by_the_worker(instance):
    loaded = config.load(str(placed('zasync.conf', instance)))
    assert loaded.target == ('', 'asynchronous_call_dispatcher', 'zam1')
    assert loaded.threads == 4
    assert loaded.zope.instancehome == str(instance)
    assert [database.name for database in loaded.zope.databases] == ['main']


def test_zasync_conf_can_take_in_a_zope_conf(instance):
    placed('zope.conf', instance)
    text = f'%include zope.conf\n{DEFINE}\ntarget /asynchronous_call_manager\n'
    loaded = config.load(str(placed('zasync.conf', instance, text)))
    assert loaded.target == ('', 'asynchronous_call_manager')
    assert [database.name for database in loaded.zope.databases] == ['main']


# three hosts

@pytest.fixture
def three_hosts(instance, tmp_path_factory):
    """The files of etc/hosts in the `etc` of an instance, with certificates of docs/hosts.rst."""
    certificates.skip_without_openssl()
    made = certificates.make(tmp_path_factory.mktemp('ca'))
    certificates.place_samples(instance, made)
    return instance / 'etc'


def test_the_zeo_conf_of_three_hosts_asks_for_certificates(three_hosts):
    options = ZEOOptions()
    options.realize(['-C', str(three_hosts / 'zeo.conf')])
    assert options.ssl.verify_mode == ssl.CERT_REQUIRED
    assert options.transaction_timeout is None


def test_the_zope_conf_of_three_hosts_is_read_by_zope(three_hosts):
    options = ZopeWSGIOptions(str(three_hosts / 'zope.conf'))()
    [database] = options.configroot.databases
    assert database.config.storage.config.ssl[1] == 'zeo.example'


@pytest.mark.parametrize('manager', ['zam1', 'zam2'])
def test_the_zasync_conf_of_three_hosts_is_read_by_the_worker(manager, three_hosts):
    loaded = config.load(str(three_hosts / f'zasync-{manager}.conf'))
    assert loaded.target == ('', 'asynchronous_call_dispatcher', manager)
    [database] = loaded.zope.databases
    storage = database.config.storage.config
    assert storage.ssl[1] == 'zeo.example'
    assert storage.shared_blob_dir is False


def test_a_worker_whose_key_is_missing_says_so(three_hosts):
    (three_hosts / 'tls' / 'workers.key').unlink()
    with pytest.raises(ConfigurationError, match=r'line \d+: .* a file that it names can not be'):
        config.load(str(three_hosts / 'zasync-zam1.conf'))


def test_a_worker_whose_certificate_is_none_says_so(three_hosts):
    (three_hosts / 'tls' / 'workers.pem').write_text('nonsense', 'ascii')
    with pytest.raises(ConfigurationError, match='a certificate, key or authority that is none'):
        config.load(str(three_hosts / 'zasync-zam1.conf'))


ZASYNC_CONF = (ETC / 'zasync.conf').read_text('utf-8')
BLOCKS = {ZASYNC_CONF.splitlines()[block[0]].strip('#<>'): block
          for block in commented_blocks(ZASYNC_CONF)}
KEYS = [name for name, block in BLOCKS.items() if len(block) == 1 and name[0] != '%']
#: Directives without a default: what the sample shows of them is an example.
EXAMPLES = {'path', 'products', 'cpu-affinity', 'max-memory', 'max-hung-threads',
            'metrics-address'}
SECTIONS = [name for name, block in BLOCKS.items() if len(block) > 1]


def values(loaded):
    """What a configuration says, without the objects that differ from one load to the next."""
    own = {name: value for name, value in vars(loaded).items()
           if isinstance(value, (str, int, float, tuple)) and name != 'path'}
    zope = {name: value for name, value in vars(loaded.zope).items()
            if isinstance(value, (str, int, float)) and name != 'worker_pid_filename'}
    return own, zope


def keys_of(kind):
    """The names of the directives that an element of a schema has."""
    return {key.get('name') for key in kind.findall('key') + kind.findall('multikey')}


def schema(name):
    """A schema of the worker's, as XML."""
    return ElementTree.parse(ETC.parent / 'zasync_client' / f'{name}.xml').getroot()


def test_zasync_conf_shows_every_directive_of_a_worker():
    shown = {line.lstrip('# ').split(' ')[0] for line in ZASYNC_CONF.splitlines()
             if line and not re.match(r'# \S', line)}
    assert keys_of(schema('schema')) | OF_ZOPE <= shown
    for file, section in (('component', 'plugin'), ('schema', 'logger')):
        [kind] = schema(file).findall(f"sectiontype[@name='{section}']")
        inside = re.findall(rf'^#<{section} .*\n((?:#  .*\n)+)', ZASYNC_CONF, re.M)
        shown = {line.lstrip('# ').split(' ')[0] for line in ''.join(inside).splitlines()}
        assert keys_of(kind) <= shown


@pytest.mark.parametrize('name', KEYS)
def test_a_key_that_zasync_conf_shows_commented_out_shows_its_default(name, instance,
                                                                     monkeypatch):
    monkeypatch.setattr('sys.path', [*sys.path])
    monkeypatch.setattr('Products.__path__', [*Products.__path__])
    untouched = config.load(str(placed('zasync.conf', instance)))
    changed = config.load(str(placed(
        'zasync.conf', instance, with_block(ZASYNC_CONF, BLOCKS[name]))))
    if name.split(' ')[0] in EXAMPLES:
        assert changed.warnings == untouched.warnings == ()
    else:
        assert values(changed) == values(untouched)


@pytest.mark.parametrize('name', SECTIONS)
def test_a_section_that_zasync_conf_shows_commented_out_is_accepted(name, instance):
    config.load(str(placed('zasync.conf', instance, with_block(ZASYNC_CONF, BLOCKS[name]))))


def test_an_unknown_directive_in_zasync_conf_is_refused(instance):
    text = (ETC / 'zasync.conf').read_text('utf-8') + '\nno-such-directive on\n'
    with pytest.raises(ConfigurationError) as refusal:
        config.load(str(placed('zasync.conf', instance, text)))
    assert 'no-such-directive' in str(refusal.value)


def test_the_unit_is_one_systemd_accepts(tmp_path):
    analyze = shutil.which('systemd-analyze')
    if analyze is None:
        pytest.skip('systemd-analyze is not installed')
    text = (ETC / 'zasync@.service').read_text('utf-8')
    # The programs of the sample are not on this machine; what it says about them is checked.
    text = text.replace('/srv/zope/bin/zasync_client', '/bin/true')
    text = text.replace('User=zope\nGroup=zope\n', '')
    unit = tmp_path / 'zasync@zam1.service'
    unit.write_text(text, 'utf-8')
    verdict = subprocess.run([analyze, 'verify', '--man=no', str(unit)], capture_output=True,
                             text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert verdict.returncode == 0, verdict.stderr
    assert 'zasync' not in verdict.stderr, verdict.stderr


def test_the_unit_waits_longer_than_the_worker_drains():
    """Else systemd kills a worker that is still giving its calls back."""
    unit = (ETC / 'zasync@.service').read_text('utf-8')
    conf = (ETC / 'zasync.conf').read_text('utf-8')
    stop = int(re.search(r'^TimeoutStopSec=(\d+)$', unit, re.M).group(1))
    drain = int(re.search(r'^#?drain-seconds (\d+)$', conf, re.M).group(1))
    assert stop > drain
