"""logtail: the log as it grows, whatever becomes of its file."""

import os
import signal
import subprocess

import pytest

from bench.processes import wait_until
from zasync_client.errors import NotSo
from zasync_client.logtail import Follower


@pytest.fixture
def log(tmp_path):
    path = tmp_path / 'log'
    path.write_bytes(b''.join(b'line %d\n' % number for number in range(100)))
    return path


def append(path, data):
    with open(path, 'ab') as file:
        file.write(data)


def test_it_begins_with_the_last_lines(log):
    with Follower(log) as follower:
        assert follower.last(2) == [b'line 98', b'line 99']
    with Follower(log) as follower:
        assert len(follower.last(1000)) == 100
        assert follower.more() == []


def test_as_many_lines_as_are_asked_for_are_there_and_whole_however_long(log):
    lines = [b'%d %s' % (number, b'x' * 200) for number in range(3_000)]
    log.write_bytes(b'\n'.join(lines) + b'\nhalf')
    for number in (1, 450, 900, 2_999, 3_000):
        with Follower(log) as follower:
            assert follower.last(number) == lines[-number:]
            append(log, b'\n')
            assert follower.more() == [b'half']
            log.write_bytes(b'\n'.join(lines) + b'\nhalf')


def test_a_line_is_given_when_it_is_whole(log):
    with Follower(log) as follower:
        follower.last(1)
        append(log, b'ha')
        assert follower.more() == []
        append(log, b'lf\nnext\n')
        assert follower.more() == [b'half', b'next']


def test_it_goes_on_in_the_new_file_after_a_rotation(log, tmp_path):
    with Follower(log) as follower:
        follower.last(1)
        log.rename(tmp_path / 'log.1')
        append(tmp_path / 'log.1', b'last of the old\nwithout an end')
        assert follower.more() == [b'last of the old']
        append(log, b'first of the new\n')
        assert follower.more() == [b'without an end', b'first of the new']
        append(log, b'second\n')
        assert follower.more() == [b'second']


def test_it_begins_anew_in_a_file_that_was_emptied(log):
    with Follower(log) as follower:
        follower.last(1)
        os.truncate(log, 0)
        append(log, b'fresh\n')
        assert follower.more() == [b'fresh']


def test_a_file_that_is_not_there_is_told_in_a_sentence(tmp_path):
    with pytest.raises(NotSo, match='there is no log .*none to be read: No such file'):
        Follower(tmp_path / 'none')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_command_follows_the_log_until_it_is_told_to_stop(site, operator, number):
    code, sentence = operator.refused('logtail')
    assert code == 1 and sentence.startswith('the worker writes no log file: ')
    log = operator.home / 'log' / 'zasync.log'
    append(log, b'old 1\nold 2\n')
    process = operator.begin('logtail', '-n', '1')
    try:
        assert process.stdout.readline() == 'old 2\n'
        append(log, b'now \x1b[2J\n')
        assert process.stdout.readline() == 'now \\x1b[2J\n'
        log.rename(operator.home / 'log' / 'zasync.log.1')
        append(log, b'rotated\n')
        assert process.stdout.readline() == 'rotated\n'
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, '')


def test_a_configured_log_is_preferred(site, operator):
    append(operator.home / 'log' / 'zasync.log', b'not this\n')
    for name, section in (('event', '<eventlog>'), ('calls', '<logger zasync>\nname zasync')):
        append(operator.home / 'log' / f'{name}.log', f'{name} line\n'.encode())
        closing = section.split()[0].strip('<>')
        operator.configure(more=f'{section}\n<logfile>\npath $INSTANCE/log/{name}.log\n'
                                f'</logfile>\n</{closing}>')
        process = operator.begin('logtail')
        try:
            assert process.stdout.readline() == f'{name} line\n'
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0


def test_whoever_reads_may_go(site, operator):
    append(operator.home / 'log' / 'zasync.log', b'line\n')
    process = subprocess.Popen(operator.argv('logtail'), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=operator.home)
    assert process.stdout.readline() == b'line\n'
    process.stdout.close()
    assert wait_until(lambda: append(operator.home / 'log' / 'zasync.log', b'more\n')
                      or process.poll() is not None, 10)
    assert process.stderr.read() == b''
    process.stderr.close()
