"""zasync.conf: the values, and one sentence for each way to get it wrong."""

import dataclasses
import os
import sys

import pytest

from Products.zasync.builtin import BUILTIN
from Products.zasync.builtin import INTERNAL
from zasync_client import config
from zasync_client import datatypes
from zasync_client.errors import ConfigurationError
from zasync_client.plugins import HANDLERS


# the datatypes

@pytest.mark.parametrize('text, expected', [
    ('/asynchronous_call_manager', ('', 'asynchronous_call_manager')),
    ('/a/b', ('', 'a', 'b')), ('/a/b/', ('', 'a', 'b')), ('//a', ('', 'a'))])
def test_a_target_is_a_path(text, expected):
    assert datatypes.target(text) == expected


@pytest.mark.parametrize('text', ['', '/', '//', 'a', 'a/b', 'http://host/a', ' /a'])
def test_a_target_that_is_no_path_to_something_is_refused(text):
    with pytest.raises(ValueError, match='target'):
        datatypes.target(text)


@pytest.mark.parametrize('text, expected', [('1', 1), ('4', 4), ('100', 100), (' 7 ', 7)])
def test_a_positive_integer_is_one(text, expected):
    assert datatypes.positive_integer(text) == expected


@pytest.mark.parametrize('text', ['0', '-1', '1.5', 'four', '', '1e3', 'nan'])
def test_what_is_no_positive_integer_is_refused(text):
    with pytest.raises(ValueError):
        datatypes.positive_integer(text)


@pytest.mark.parametrize('text', ['0', '11', '-1', 'many', '', '2.0'])
def test_more_interruptions_than_a_call_remembers_or_none_are_refused(text):
    assert [datatypes.few(number) for number in ('1', '10')] == [1, 10]
    with pytest.raises(ValueError, match='1 to 10'):
        datatypes.few(text)


@pytest.mark.parametrize('text, expected', [('0', 0.0), ('1.5', 1.5), ('3600', 3600.0)])
def test_seconds_are_a_number(text, expected):
    assert datatypes.seconds(text) == expected


@pytest.mark.parametrize('text', ['-1', 'inf', 'nan', 'soon', '', '-inf', '10s'])
def test_what_are_no_seconds_is_refused(text):
    with pytest.raises(ValueError):
        datatypes.seconds(text)
    with pytest.raises(ValueError):
        datatypes.positive_seconds(text)


def test_positive_seconds_are_more_than_none():
    assert datatypes.positive_seconds('0.001') == 0.001
    with pytest.raises(ValueError, match='more than 0'):
        datatypes.positive_seconds('0')


@pytest.mark.parametrize('text, expected', [('1', 1.0), ('1.1', 1.1), ('2', 2.0)])
def test_growth_is_a_factor(text, expected):
    assert datatypes.growth(text) == expected


@pytest.mark.parametrize('text', ['0.99', '0', '-2', 'inf', 'nan', 'x', ''])
def test_growth_under_1_is_refused(text):
    with pytest.raises(ValueError):
        datatypes.growth(text)


# whole files

@pytest.fixture
def conf(tmp_path):
    """A function: text → path of a zasync.conf with a line for the instance, and this text."""
    def write(text=''):
        path = tmp_path / 'zasync.conf'
        path.write_text(f'instancehome {tmp_path}\n{text}', 'utf-8')
        return path
    return write


def refusal(path):
    with pytest.raises(ConfigurationError) as refused:
        config.load(str(path))
    assert refused.value.exit_code == 2
    text = str(refused.value)
    assert '\n' not in text
    return text


def test_a_file_that_says_nothing_has_the_historic_defaults(conf):
    loaded = config.load(conf())
    assert loaded.target == ('', 'asynchronous_call_manager')
    assert loaded.max_conflict_attempts == 5
    assert loaded.initial_retry_seconds == 5.0
    assert loaded.retry_growth == 1.1
    assert loaded.max_total_retry_seconds == 3600.0
    assert (loaded.threads, loaded.drain_seconds) == (4, 20.0)
    assert loaded.max_interruptions == 5
    assert (loaded.max_hung_threads, loaded.max_memory_bytes) == (None, None)
    assert loaded.cpu_affinity is None
    assert {name: plugin.handler for name, plugin in loaded.plugins.items()} == {
        name: plugin.run or HANDLERS[name] for name, plugin in {**BUILTIN, **INTERNAL}.items()}
    assert {name for name, plugin in loaded.plugins.items() if not plugin.zope_aware} == set(
        HANDLERS)


def test_every_directive_reaches_the_configuration(conf, tmp_path):
    path = conf('''
target /zad/zam1
threads 2
cpu-affinity 0-2, 5
max-conflict-resolution-attempts 7
batch-seconds 0.2
max-result-size 500KB
initial-retry-delay 0.5
retry-exponential-backoff 2
max-total-retry 0
drain-seconds 3.5
max-interruptions 3
max-hung-threads 2
max-memory 1GB
metrics-address 9180
worker-pid-filename /run/zasync.pid
verbose-traceback on
<plugin join>
  handler os.path.join
  description joins
</plugin>
''')
    loaded = config.load(str(path))
    assert dataclasses.asdict(dataclasses.replace(
        loaded, zope=None, handlers=None, plugins={})) == {
            'path': str(path), 'target': ('', 'zad', 'zam1'), 'threads': 2,
            'cpu_affinity': frozenset({0, 1, 2, 5}), 'metrics_address': ('127.0.0.1', 9180),
            'max_conflict_attempts': 7, 'initial_retry_seconds': 0.5, 'retry_growth': 2.0,
            'max_total_retry_seconds': 0.0, 'drain_seconds': 3.5, 'plugins': {}, 'zope': None,
            'handlers': None, 'max_interruptions': 3, 'max_hung_threads': 2,
            'max_memory_bytes': 1024 ** 3, 'pid_path': '/run/zasync.pid',
            'max_result_bytes': 500 * 1024,
            'verbose_traceback': True, 'batch_seconds': 0.2, 'warnings': ()}
    import os.path
    assert loaded.plugins['join'].handler is os.path.join
    assert loaded.plugins['join'].description == 'joins'
    assert set(loaded.plugins) == {*BUILTIN, *INTERNAL, 'join'}


def test_a_configuration_is_frozen(conf):
    loaded = config.load(conf())
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.threads = 9


def test_a_file_that_does_not_exist_is_named(tmp_path):
    text = refusal(tmp_path / 'no.conf')
    assert str(tmp_path / 'no.conf') in text


def test_a_file_that_may_be_there_and_can_not_be_looked_at_is_not_said_to_be_missing(tmp_path):
    """A directory on the way that this user may not enter is the usual reason."""
    loop = tmp_path / 'loop'
    loop.symlink_to(loop)
    assert refusal(loop / 'zasync.conf') == (
        f'the configuration file {loop}/zasync.conf can not be read: Too many levels of symbolic '
        'links')


def test_a_directory_is_no_configuration_file(tmp_path):
    assert refusal(tmp_path) == f'{tmp_path} is a directory: name the configuration file in it'


@pytest.mark.parametrize('line, word', [
    ('no-such-key 5', 'no-such-key'),
    ('threds 4', 'threds'),
    ('<nosuchsection>\n</nosuchsection>', 'nosuchsection'),
    ('target portal/zam', 'target'),
    ('target /', 'target'),
    ('threads 0', '1 or more'),
    ('threads many', 'many'),
    ('cpu-affinity', 'like 0 or 0-2,5'),
    ('cpu-affinity all', 'like 0 or 0-2,5'),
    ('cpu-affinity 0,,2', 'like 0 or 0-2,5'),
    ('cpu-affinity -1', 'like 0 or 0-2,5'),
    ('cpu-affinity 3-1', 'the range 3-1 ends before it begins'),
    ('max-conflict-resolution-attempts 0', '1 or more'),
    ('initial-retry-delay 0', 'more than 0'),
    ('initial-retry-delay soon', 'soon'),
    ('retry-exponential-backoff 0.5', '1 (constant) or more'),
    ('max-total-retry -1', '0 or more'),
    ('drain-seconds -1', '0 or more'),
    ('max-interruptions 0', '1 to 10'),
    ('max-interruptions 11', '1 to 10'),
    ('max-hung-threads 0', '1 or more'),
    ('max-memory lots', '500KB'),
    ('metrics-address here', 'like 127.0.0.1:9180'),
    ('metrics-address localhost:0', 'like 127.0.0.1:9180'),
    ('metrics-address :99999', 'like 127.0.0.1:9180'),
    ('max-result-size 0', 'more than 0'),
    ('max-result-size -5MB', '10MB'),
    ('max-result-size 5TB', '10MB'),
    ('path', 'directory'),
    ('security-policy-implementation java', 'security-policy-implementation'),
    ('<logger>\n  level info\n</logger>', 'name'),
    ('%include zasync.conf', 'includes itself'),
    ('%import no_such_package', 'no_such_package'),
    ('<plugin x>\n  handler os.path.join\n</plugini>', 'should be </plugin>'),
    ('<plugin x>\n  handler os.path.no_such_function\n</plugin>', 'no_such_function'),
    ('<plugin x>\n  handler no_such_module_at_all.run\n</plugin>', 'no_such_module_at_all'),
    ('<plugin x>\n  handler run\n</plugin>', "'run'"),
    ('<plugin x>\n  handler os.path.sep\n</plugin>', 'os.path.sep'),
    ('<plugin x>\n  description no handler\n</plugin>', 'handler'),
    ('<plugin>\n  handler os.path.join\n</plugin>', 'name'),
    ('<zasync-worker>\n</zasync-worker>', 'a section <zasync-worker> needs a name'),
    ('<product-config>\n</product-config>', 'a section <product-config> needs a name'),
    ('<plugin x>\n  handler os.path.join\n', ''),
    ('%define', ''),
    ('threads $NOWHERE', 'NOWHERE'),
])
def test_a_wrong_file_is_refused_with_a_sentence_that_names_file_and_line(conf, line, word):
    path = conf(f'\n# line 3\n{line}\n')
    text = refusal(path)
    assert word.lower() in text.lower(), text
    assert str(path) in text, text
    assert 'line ' in text, text


def test_the_line_that_is_named_is_the_wrong_one(conf):
    path = conf('\n# line 3\nthreads 2\nthreads_wrong 5\nmax-total-retry 5\n')
    assert 'line 5' in refusal(path)
    path = conf('\n# line 3\nthreads 2\ninitial-retry-delay soon\n')
    assert 'line 5' in refusal(path)


@pytest.mark.parametrize('name', ['zope_exec', 'zope_call'])
def test_a_site_may_put_a_handler_of_its_own_in_place_of_a_builtin_plugin(conf, name):
    """What the door checks stays the same; who runs the calls is the site's business."""
    loaded = config.load(conf(f'<plugin {name}>\n  handler os.path.join\n</plugin>\n'))
    assert loaded.plugins[name].handler is not BUILTIN[name].run


def test_a_plugin_name_is_in_small_letters_as_zconfig_has_it(conf):
    loaded = config.load(conf('<plugin SendMail>\n  handler os.path.join\n</plugin>\n'))
    assert loaded.plugins['sendmail'].name == 'sendmail'


def test_an_included_file_that_does_not_exist_is_named(conf):
    path = conf('%include no-such-file.conf\n')
    text = refusal(path)
    assert str(path) in text and 'no-such-file.conf' in text


def test_two_plugins_of_one_name_are_refused(conf):
    text = refusal(conf('<plugin x>\n  handler os.path.join\n</plugin>\n'
                        '<plugin x>\n  handler os.path.split\n</plugin>\n'))
    assert 'x' in text


# what is written otherwise today

def test_the_pid_file_is_called_like_the_configuration(conf, tmp_path):
    assert config.load(conf()).pid_path == str(tmp_path / 'var' / 'zasync.pid')


@pytest.mark.parametrize('name', ['zasync.pid', 'run/../zasync.pid'])
def test_a_relative_pid_file_starts_where_the_command_is_given(conf, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    loaded = config.load(conf(f'worker-pid-filename {name}\n'))
    assert loaded.pid_path == str(tmp_path / 'zasync.pid')


def test_a_variable_of_the_environment_is_put_in(conf, monkeypatch):
    monkeypatch.setenv('ZASYNC_TEST_TARGET', '/from/outside')
    assert config.load(conf('target $(ZASYNC_TEST_TARGET)\n')).target == ('', 'from', 'outside')


@pytest.mark.parametrize('line, remedy', [
    ('target $NO_SUCH', '%define NO_SUCH would do it'),
    ('target $(NO_SUCH)', 'set it where the command is started')])
def test_of_a_name_that_stands_for_nothing_it_is_said_what_would_help(conf, line, remedy):
    text = refusal(conf(f'{line}\n'))
    assert remedy in text
    assert ('%define' in text) == ('(' not in line)


def test_a_variable_that_is_there_is_not_taken_for_the_name_that_is_not_defined(conf, monkeypatch):
    monkeypatch.setenv('NAMED', '/x')
    assert 'NAMED is not defined' in refusal(conf('target $(NAMED)/$NAMED\n'))


def test_verbose_security_is_refused_where_zope_does_not_have_it(conf):
    path = conf('verbose-security on\n')
    _, found = config.survey(path)
    (problem,) = found.problems
    assert problem.text.startswith('verbose-security on needs security-policy-implementation ')
    assert 'verbose-security on' in path.read_text('utf-8').splitlines()[problem.line - 1]
    config.load(conf('verbose-security on\nsecurity-policy-implementation python\n'))


def test_a_logger_without_a_name_is_refused_with_the_line_it_begins_in(conf):
    path = conf('<logger>\n</logger>\n')
    line = path.read_text('utf-8').splitlines().index('<logger>') + 1
    assert f'{path}, line {line}: a logger section needs a name' in refusal(path)


def test_the_environment_is_set_before_handlers_are_imported(conf, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.delenv('ZASYNC_TEST_NAME', raising=False)
    (tmp_path / 'zasync_test_asks.py').write_text(
        'import os\n\n\ndef handler(name=os.environ["ZASYNC_TEST_NAME"]):\n    return name\n')
    loaded = config.load(conf(f'''
path {tmp_path}
<plugin x>
  handler zasync_test_asks.handler
</plugin>
<environment>
  ZASYNC_TEST_NAME value
</environment>
'''))
    assert loaded.plugins['x'].handler() == 'value'
    assert sys.path[0] == str(tmp_path)
    del os.environ['ZASYNC_TEST_NAME']


def test_directories_of_products_come_first_in_the_order_given(conf, monkeypatch, tmp_path):
    import Products
    monkeypatch.setattr(Products, '__path__', list(Products.__path__))
    before = list(Products.__path__)
    for name in ('one', 'two'):
        (tmp_path / name / 'ZasyncTestProduct').mkdir(parents=True)
        (tmp_path / name / 'ZasyncTestProduct' / '__init__.py').write_text(f'where = {name!r}\n')
    config.load(conf(f'products {tmp_path}/two\nproducts {tmp_path}/one\n'))
    assert list(Products.__path__) == [f'{tmp_path}/two', f'{tmp_path}/one', *before]
    from Products.ZasyncTestProduct import where
    assert where == 'two'


def test_a_directory_that_is_not_there_is_a_warning(conf, tmp_path):
    loaded = config.load(conf(f'path {tmp_path}/none\nproducts {tmp_path}/nothing\n'))
    assert [warning.partition(':')[0] for warning in loaded.warnings] == [
        f'path {tmp_path}/none', f'products {tmp_path}/nothing']


def test_skipping_checks_never_goes_without_a_warning(conf):
    loaded = config.load(conf('skip-authentication-checking on\nskip-ownership-checking yes\n'))
    assert len(loaded.warnings) == 2
    assert 'weakens security' in loaded.warnings[1]
    assert not loaded.zope.skip_authentication_checking
    assert loaded.zope.skip_ownership_checking
    assert config.load(conf('skip-ownership-checking off\n')).warnings == ()


def test_a_warning_names_the_file_and_line_it_is_about_even_in_an_included_one(conf, tmp_path):
    (tmp_path / 'zope.conf').write_text('\nskip-ownership-checking on\n')
    warning, = config.load(conf('%include zope.conf\n')).warnings
    assert warning.startswith(f'{tmp_path / "zope.conf"}, line 2: ')


def test_a_logger_is_called_like_its_section_or_as_it_says(conf):
    loaded = config.load(conf('''
<logger zasync>
  level trace
</logger>
<logger other>
  name some.package
  level ALL
</logger>
'''))
    assert [(logger.name, logger.level) for logger in loaded.zope.loggers] == [
        ('zasync', 5), ('some.package', 1)]


def test_every_handler_of_a_log_of_2006_is_known(conf):
    loaded = config.load(conf('''
<eventlog>
  <logfile>
    path STDOUT
    dateformat %H
  </logfile>
  <syslog>
    address localhost:514
  </syslog>
  <win32-eventlog>
    appname x
  </win32-eventlog>
  <http-handler>
    url http://localhost/
  </http-handler>
  <email-notifier>
    from a@example.com
    to b@example.com
    level critical
  </email-notifier>
</eventlog>
'''))
    assert len(loaded.zope.eventlog.handler_factories) == 5
    assert len(loaded.warnings) == 2
    assert '<http-logger>' in loaded.warnings[1]
