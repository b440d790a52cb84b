"""check: every mistake in the file, and how the world differs from it."""

import json
import re
import shutil
import socket

import pytest
from ZODB.FileStorage import FileStorage

from bench.processes import free_port


def test_a_file_that_is_right_in_a_world_that_is_right(operator):
    code, output, errors = operator.does('check')
    assert (code, errors) == (0, '')
    assert output.endswith('zasync.conf: no errors\n')


def test_all_that_is_wrong_in_a_file_is_said_with_its_line(operator):
    operator.configure(more='''\
threds 5
max-result-size much
<plugin a>
  handler no.such.thing
</plugin>
<plugin b>
  handler os.path.sep
  timeout soon
</plugin>
<plugin c>
  handler os.path.sep
</plugin>
<plugin d>
  handler tests.client.jobs.nothing_by_position
  zope-aware on
</plugin>
<nosuch>
  key value
</nosuch>
<plugin e>
  handler os.path.join
  frob 5
</plugin>
%frobnicate
drain-seconds $NOWHERE
''')
    code, output, errors = operator.does('check', '--wait', '5')
    assert code == 2
    lines = errors.splitlines()
    words = ["line 6: 'threds' is not a known key name; is threads meant?",
             "line 7: max-result-size must be a number of bytes, like 500KB or 10MB, not 'much'",
             "line 9: plugin a: the handler 'no.such.thing' can not be imported",
             "line 12: plugin b: the handler 'os.path.sep' can not be called",
             "line 13: timeout must be a number, not 'soon'",
             "line 16: plugin c: the handler 'os.path.sep' can not be called",
             "line 19: plugin d: the handler 'tests.client.jobs.nothing_by_position' takes no",
             'line 22: there is no section <nosuch>',
             "line 27: 'frob' is not a known key name",
             "line 29: unknown directive: 'frobnicate'",
             'line 30: NOWHERE is not defined']
    missing = [word for word in words if not any(word in line for line in lines)]
    assert missing == [], errors
    assert len(lines) == len(words), errors
    assert all(line.startswith(f'error: {operator.conf}, line ') for line in lines)


def test_a_missing_section_end_is_said_where_the_section_begins(operator):
    operator.configure(more='<plugin x>\n  handler os.path.join\n')
    code, output, errors = operator.does('check')
    assert code == 2
    assert 'line 6: the section <plugin> that begins here does not end' in errors
    assert 'databases and target were not looked at' in output


def test_a_mistake_that_databases_depend_on_hides_none_that_they_do_not(operator, tmp_path):
    operator.configure(more=f'''\
cpu-affinity 1023
max-memory 1MB
<zodb_db other>
  mount-point /other
  frob 5
</zodb_db>
<eventlog>
  <logfile>
    path {tmp_path}/nowhere/zasync.log
  </logfile>
</eventlog>
''')
    code, output, errors = operator.does('check')
    assert code == 2
    words = ["line 10: 'frob' is not a known key name", 'nowhere/zasync.log can not be opened',
             'max-memory is 1 MB', 'cpu-affinity names processor 1023']
    assert [word for word in words if word not in errors] == [], errors
    assert len(errors.splitlines()) == len(words), errors
    assert 'databases and target were not looked at' in output


def test_a_server_that_is_away_is_the_world_s_fault_and_is_named(operator):
    operator.conf.write_text(
        f'instancehome {operator.home}\n<zodb_db main>\n mount-point /\n <zeoclient>\n'
        f'  server 127.0.0.1:{free_port()}\n </zeoclient>\n</zodb_db>\n', 'utf-8')
    code, output, errors = operator.does('check', '--wait', '0.5')
    assert code == 1
    assert errors.startswith('error: the database main at 127.0.0.1:')
    assert len(errors.splitlines()) == 1


def test_every_database_is_asked(operator):
    operator.configure(more=''.join(
        f'<zodb_db {name}>\n mount-point /{name}\n <zeoclient>\n  server 127.0.0.1:{free_port()}\n'
        '  wait off\n </zeoclient>\n</zodb_db>\n' for name in ('one', 'two')))
    code, output, errors = operator.does('check', '--wait', '0.5')
    assert code == 1
    assert 'database one at' in errors and 'database two at' in errors
    assert len(errors.splitlines()) == 2


@pytest.mark.parametrize('more, told, why', [
    ('blob-dir {0}/blobs', '{0}/blobs', '{0} is no directory'),
    ('client zope\nvar {0}', '{0}/zope-1.zec', 'there is no directory {0}'),
    ('client zope\nvar {1}', '{1}/zope-1.zec', 'it is a directory')])
def test_what_a_database_has_in_files_and_can_not_be_written_is_named(
        site, operator, tmp_path, more, told, why):
    file, full = tmp_path / 'file', tmp_path / 'full'
    file.write_text('')
    (full / 'zope-1.zec').mkdir(parents=True)
    more, told, why = [text.format(file, full) for text in (more, told, why)]
    operator.conf.write_text(
        f'instancehome {operator.home}\ntarget /zam1\n<zodb_db main>\nmount-point /\n'
        f'<zeoclient>\nserver {site.address[0]}:{site.address[1]}\n{more}\n</zeoclient>\n'
        '</zodb_db>\n', 'utf-8')
    code, _, errors = operator.does('check')
    assert (code, errors) == (
        2, f'error: the database main: {told} can not be written: {why}\n')
    code, sentence = operator.refused('start')
    assert code == 2
    wrong = f'{operator.conf}: a file of a database can not be opened: {tmp_path}'
    assert sentence.startswith(wrong)
    assert sentence.endswith((': Not a directory', ': Is a directory'))
    if 'blob-dir' in more:  # no command keeps a cache
        assert operator.does('status')[1].startswith(f'not running; {wrong}')


def test_a_file_of_a_database_that_another_process_has_open_is_named(operator):
    path = operator.use_file_storage()
    storage = FileStorage(str(path))
    storage.close()
    code, output, errors = operator.does('check')
    assert code == 1 and 'open in another process' not in errors
    storage = FileStorage(str(path))
    try:
        code, output, errors = operator.does('check')
        assert code == 2
        assert errors.startswith(f'error: the database main: {path} is open in another process')
        operator.configure(more=f'<zodb_db other>\nmount-point /other\n<demostorage>\n'
                                f'<filestorage>\npath {path}\n</filestorage>\n'
                                f'</demostorage>\n</zodb_db>\n')
        code, output, errors = operator.does('check')
        assert f'the database other: {path} is open in another process' in errors
    finally:
        storage.close()


def test_a_file_without_a_root_database_is_wrong(operator):
    operator.conf.write_text(f'instancehome {operator.home}\n', 'utf-8')
    code, output, errors = operator.does('check')
    assert code == 2
    assert 'mount-point /' in errors


def test_a_target_that_is_not_there_is_the_world_s_fault(operator):
    operator.configure(target='/later')
    code, output, errors = operator.does('check')
    assert code == 1
    assert 'there is nothing at the target /later' in errors


def test_a_target_that_is_no_manager_is_a_wrong_file(operator):
    operator.configure(target='/acl_users')
    code, output, errors = operator.does('check')
    assert code == 2
    assert "no asynchronous call manager but 'User Folder'" in errors


def test_a_log_that_can_not_be_opened_is_named(operator):
    operator.configure(more='<logger zasync>\n <logfile>\n  path /no/such/place/x.log\n'
                            ' </logfile>\n</logger>\n')
    code, output, errors = operator.does('check')
    assert code == 2
    assert 'the log /no/such/place/x.log can not be opened: there is no directory' in errors


def test_a_log_in_the_directory_that_start_makes_is_no_mistake(operator):
    directory = operator.home / 'log'
    operator.configure(more=f'<logger zasync>\n <logfile>\n  path {directory}/x.log\n'
                            ' </logfile>\n</logger>\n')
    shutil.rmtree(directory, ignore_errors=True)
    code, output, errors = operator.does('check')
    assert (code, errors) == (0, '')
    assert f'warning: the log {directory}/x.log can be opened by a worker that start' in output
    assert not directory.exists()
    code, sentence = operator.refused('run')
    assert code == 2 and 'a log can not be opened' in sentence
    assert operator.does('start')[0] == 0
    assert (directory / 'x.log').exists()
    assert 'x.log' not in operator.does('check')[1]


@pytest.mark.parametrize('line, mistake', [
    ('format {message}', "Invalid format '{message}' for '%' style"),
    ('encoding utf-9', 'unknown encoding: utf-9')])
def test_a_log_whose_lines_can_not_be_written_so_is_wrong(operator, line, mistake):
    operator.configure(more='<eventlog>\n <logfile>\n  path $INSTANCE/var/x.log\n'
                            f'  {line}\n </logfile>\n</eventlog>\n')
    code, output, errors = operator.does('check')
    assert (code, errors) == (2, f'error: a log can not be opened: {mistake}\n')
    assert operator.refused('run') == (2, f'a log can not be opened: {mistake}')


def test_a_log_of_a_package_that_makes_its_handlers_in_its_own_way_is_not_looked_into(
        operator, tmp_path, monkeypatch):
    """As that of raven, which sends what is logged to Sentry."""
    package = tmp_path / 'ownlog'
    package.mkdir()
    (package / '__init__.py').write_text('''\
import logging
from ZConfig.components.logger.factory import Factory

class OwnFactory(Factory):
    def __init__(self, section):
        super().__init__()
        self.section = section

    def getLevel(self):
        return logging.INFO

    def create(self):
        return logging.NullHandler()
''', 'utf-8')
    (package / 'component.xml').write_text('''\
<component prefix="ownlog">
  <import package="ZConfig.components.logger" file="abstract.xml"/>
  <sectiontype name="own" implements="ZConfig.logger.handler" datatype=".OwnFactory"/>
</component>
''', 'utf-8')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    operator.configure(more='%import ownlog\n<eventlog>\n <own>\n </own>\n</eventlog>\n')
    assert operator.does('check')[::2] == (0, '')


def test_a_worker_of_the_file_that_serves_the_target_is_no_error(site, operator):
    operator.gets('start')
    code, output, errors = operator.does('check')
    assert (code, errors) == (0, '')
    assert ('info: the target /zam1 is served by the worker of this configuration, process '
            f'{operator.pid()} on ') in output


def test_another_worker_that_serves_the_target_is_the_world_s_fault(site, operator):
    worker = site.start_worker('zam1')
    code, output, errors = operator.does('check')
    assert code == 1
    assert errors == ('error: the target /zam1 is served by another worker already: process '
                      f'{worker.pid} on {socket.gethostname()}\n')


def test_the_worker_of_another_file_that_has_the_PID_file_is_named(site, operator):
    operator.gets('start')
    (operator.home / 'etc' / 'other').mkdir()
    other = operator.home / 'etc' / 'other' / 'zasync.conf'
    other.write_text(operator.conf.read_text('utf-8').replace('zope.conf', '../zope.conf')
                     .replace('/zam1', '/zam2'), 'utf-8')
    operator.conf = other
    code, output, errors = operator.does('check')
    assert code == 2
    assert errors.startswith(f'error: the PID file {operator.pid_path} is held by the worker of '
                             'another configuration')


def test_a_PID_file_that_can_not_be_written_is_wrong(operator):
    operator.pid_path.mkdir()
    code, output, errors = operator.does('check')
    assert code == 2
    assert errors == (f'error: the PID file {operator.pid_path} can not be written: it is a '
                      'directory\n')


def test_a_PID_file_whose_directory_can_not_be_made_is_wrong(operator):
    path = operator.conf / 'run' / 'zasync.pid'
    operator.configure(more=f'worker-pid-filename {path}')
    code, output, errors = operator.does('check')
    assert code == 2
    assert errors == (f'error: the PID file {path} can not be written: {operator.conf} is no '
                      'directory\n')
    assert operator.does('run')[0] == 2


def test_a_PID_file_without_a_directory_is_where_the_command_is_given(operator):
    operator.configure(more='worker-pid-filename worker.pid')
    operator.pid_path = operator.home / 'worker.pid'
    assert operator.gets('check').endswith(': no errors\n')
    assert operator.gets('start').startswith('started: process ')
    assert operator.pid() is not None
    assert operator.gets('stop').startswith('stopped: process ')


def test_less_memory_than_a_worker_takes_is_wrong(operator):
    operator.configure(more='max-memory 1MB')
    code, output, errors = operator.does('check')
    assert code == 2
    assert re.fullmatch(r'error: max-memory is 1 MB, and this check has \d+ MB, which is less '
                        r'than a worker has before its first call: give it twice of that, or '
                        r'more\n', errors)


def test_a_processor_that_is_not_there_is_wrong(operator):
    operator.configure(more='cpu-affinity 0,9999')
    sentence = (r'error: cpu-affinity names processor 9999, and this process may not run there, '
                r'but on processors? [0-9,-]+: name what is there, or leave the line out\n')
    code, _output, errors = operator.does('check')
    assert code == 2
    assert re.fullmatch(sentence, errors), errors


def test_a_worker_that_was_killed_is_told(site, operator):
    worker = site.start_worker('zam1')
    site.stack.kill(worker)
    code, output, errors = operator.does('check')
    assert (code, errors) == (0, '')
    assert 'which is dead: the next worker takes up what it had begun' in output


def test_programs_get_json(operator):
    operator.configure(target='/later', more='skip-ownership-checking on\nthreds 5\n')
    code, output, errors = operator.does('check', '--json')
    answer = json.loads(output)
    assert (code, errors, answer['exit_code']) == (2, '', 2)
    severities = [(each['severity'], each['code'], each['line']) for each in answer['findings']]
    assert severities == [('error', 2, 7), ('warning', 0, 6), ('error', 1, None)]


def test_a_file_that_is_not_there_is_named(operator):
    operator.conf.unlink()
    code, output, errors = operator.does('check')
    assert code == 2
    assert 'there is no configuration file' in errors
