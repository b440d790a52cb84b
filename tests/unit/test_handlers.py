"""<plugin> sections: what their settings mean, and which handlers are refused."""

import abc
import os
import subprocess

import pytest

from Products.zasync.builtin import BUILTIN
from zasync_client import config
from zasync_client import historic
from zasync_client.errors import ConfigurationError
from zasync_client.handlers import BadHandler
from zasync_client.handlers import built_in
from zasync_client.handlers import look_at


@pytest.fixture
def load(tmp_path):
    """A function: text → the Config of a file with this text."""
    def load(text):
        path = tmp_path / 'zasync.conf'
        path.write_text(f'instancehome {tmp_path}\n{text}', 'utf-8')
        return config.load(str(path))
    return load


def test_a_plugin_has_the_defaults_of_the_historic_contract(load):
    plugin = load('<plugin join>\n handler os.path.join\n</plugin>\n').plugins['join']
    assert plugin == config.Plugin('join', os.path.join, '', None, False, True, 1, 5.0, 2.0, ())


def test_every_setting_of_a_plugin_is_kept(load):
    plugin = load('''<plugin join>
  name Join
  handler os.path.join
  timeout 60
  zope-aware yes
  retry on
  attempts 3
  retry-delay 0
  retry-growth 1
  retry-on OSError socket.timeout
  retry-on subprocess.TimeoutExpired
  description joins
</plugin>
''').plugins['Join']
    assert plugin == config.Plugin(
        'Join', os.path.join, 'joins', 60.0, True, True, 3, 0.0, 1.0,
        ('OSError', 'TimeoutError', f'{subprocess.TimeoutExpired.__module__}.TimeoutExpired'))


def test_a_section_for_a_built_in_plugin_changes_its_settings_alone(load):
    loaded = load('<plugin zope_exec>\n timeout 5\n attempts 2\n</plugin>\n'
                  '<plugin protected_ldap>\n retry off\n description ours\n</plugin>\n')
    plugin = loaded.plugins['zope_exec']
    assert plugin.handler is BUILTIN['zope_exec'].run and plugin.zope_aware
    assert (plugin.timeout_seconds, plugin.attempts) == (5.0, 2)
    assert plugin.description == BUILTIN['zope_exec'].description
    plugin = loaded.plugins['protected_ldap']
    assert plugin.handler is built_in()['protected_ldap'].handler and not plugin.zope_aware
    assert (plugin.retry, plugin.description) == (False, 'ours')
    assert loaded.warnings == ()


@pytest.mark.parametrize('lines, name, expected', [
    ('', 'echo', True), ('', 'zope_call', False), ('', 'zope_exec', False),
    ('<plugin echo>\n timeout 5\n</plugin>', 'echo', True),
    ('<plugin echo>\n groupable off\n</plugin>', 'echo', False),
    ('<plugin zope_exec>\n groupable on\n</plugin>', 'zope_exec', True),
    ('<plugin zope_exec>\n timeout 5\n</plugin>', 'zope_exec', False),
    ('<plugin x>\n handler os.path.join\n zope-aware on\n</plugin>', 'x', False),
    ('<plugin x>\n handler os.path.join\n zope-aware on\n groupable on\n</plugin>', 'x', True)])
def test_calls_of_a_plugin_share_transactions_if_it_or_the_site_says_so(
        load, lines, name, expected):
    loaded = load(f'{lines}\n')
    assert loaded.plugins[name].groupable is expected
    assert loaded.warnings == ()


@pytest.mark.parametrize('dotted, name', sorted(historic.HANDLERS.items()))
def test_a_handler_of_2006_is_the_built_in_plugin(load, dotted, name):
    loaded = load(f'<plugin {name}>\n handler {dotted}\n timeout 60\n</plugin>\n')
    if name in built_in():
        assert loaded.plugins[name].handler is built_in()[name].handler
        assert loaded.plugins[name].timeout_seconds == 60.0
    else:
        assert name == 'schedule' and name not in loaded.plugins
    assert loaded.warnings[0].endswith(historic.of_handler(dotted, name))
    assert 'line 3: ' in loaded.warnings[0]


def test_a_handler_of_2006_by_another_name_is_checked_when_it_runs(load):
    loaded = load('<plugin run_it>\n handler zasync.plugins.zope_exec\n</plugin>')
    plugin = loaded.plugins['run_it']
    assert plugin.zope_aware
    with pytest.raises(ValueError, match='zope_exec takes'):
        plugin.handler(None, 'one')


@pytest.mark.parametrize('name, handler', [
    ('wait', 'zasync.plugins.schedule'), ('all', 'zasync.plugins.aggregatePlugins')])
def test_what_the_door_does_keeps_its_name(load, name, handler):
    with pytest.raises(ConfigurationError, match='has to be called'):
        load(f'<plugin {name}>\n handler {handler}\n</plugin>')


def test_what_has_no_effect_on_a_built_in_plugin_is_a_warning(load):
    warnings = load('<plugin echo>\n</plugin>\n'
                    '<plugin zope_exec>\n zope-aware off\n timeout 5\n</plugin>\n'
                    '<plugin schedule>\n timeout 5\n</plugin>\n').warnings
    assert [words in warning for words, warning in zip(
        ('changes nothing', 'zope-aware has no effect', 'puts another call'), warnings,
        strict=True)] == [True] * 3


@pytest.mark.parametrize('lines, word', [
    ('timeout 0', 'more than 0'), ('timeout soon', 'soon'), ('attempts 0', '1 or more'),
    ('retry-delay -1', '0 or more'), ('retry-growth 0.5', '1 (constant) or more'),
    ('retry-on', 'exception'), ('retry-on NoSuchError', 'NoSuchError'),
    ('retry-on os.path.join', 'no class of exceptions'), ('retry-on no.such.Error', 'no.such'),
    ('retry off\n attempts 2', 'contradicts'), ('zope-aware perhaps', 'perhaps'),
    ('groupable perhaps', 'perhaps'), ('groupable on', 'is not zope-aware'),
    ('zope-aware on\n retry off\n groupable on', 'retry off'),
    ('name other', 'one of them'), ('timeout 1\n timeout 2', 'multiple')])
def test_a_wrong_setting_is_refused_with_its_line(load, lines, word):
    with pytest.raises(ConfigurationError) as refused:
        load(f'<plugin x>\n handler os.path.join\n {lines}\n</plugin>\n')
    assert word in str(refused.value)
    assert f'line {4 + lines.count(chr(10))}: ' in str(refused.value)


def test_two_plugins_of_one_name_are_refused_however_they_say_it(load):
    with pytest.raises(ConfigurationError, match='there is a plugin x already'):
        load('<plugin x>\n handler os.path.join\n</plugin>\n'
             '<plugin>\n name x\n handler os.path.join\n</plugin>\n')


def test_a_name_of_ours_is_refused(load):
    with pytest.raises(ConfigurationError, match='one of ours'):
        load('<plugin follow>\n handler os.path.join\n</plugin>\n')


# handlers

class Abstract(abc.ABC):
    """Makes no instances."""

    @abc.abstractmethod
    def work(self):
        """Nobody does it."""


class Called:
    """Its instances are called."""

    def __call__(self, run, path):
        return path


async def coroutine(run):
    """Nobody would wait for it."""


def generator(run):
    """Nobody would ask for its values."""
    yield run


class AwaitedCall:
    """Its instances are called, and nobody waits."""

    async def __call__(self, run):
        return run


@pytest.mark.parametrize('aware, handler', [
    (True, lambda: 1), (True, lambda *, run: 1), (True, lambda **kwargs: 1),
    (True, Abstract), (False, Abstract), (True, coroutine), (False, coroutine),
    (False, generator), (True, AwaitedCall())])
def test_a_handler_that_no_call_can_run_with_is_refused(aware, handler):
    with pytest.raises(BadHandler):
        look_at(handler, aware)


@pytest.mark.parametrize('aware, handler', [
    (True, lambda run: 1), (True, lambda *args: 1), (True, lambda run, *, name: 1),
    (True, Called()), (False, lambda: 1), (False, lambda *, name: 1), (False, os.path.join),
    (False, max), (True, max), (True, dict), (False, int), (False, Called)])
def test_a_handler_that_some_call_can_run_with_is_taken(aware, handler):
    assert look_at(handler, aware) is None


@pytest.mark.parametrize('handler', [lambda run, path: 1, Called()])
def test_a_handler_that_waits_for_the_run_and_will_not_get_it_is_a_warning(handler):
    assert 'zope-aware on' in look_at(handler, False)


def test_a_module_that_exits_when_it_is_imported_does_not_stop_us(load, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'zasync_test_exits.py').write_text('raise SystemExit("no")\n')
    with pytest.raises(ConfigurationError, match='SystemExit: no'):
        load('<plugin x>\n handler zasync_test_exits.run\n</plugin>\n')
