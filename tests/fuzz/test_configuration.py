"""zasync.conf: whatever the bytes, a Config that holds what is documented, or a sentence."""

import contextlib
import math
import os
import subprocess
import sys
import time

import pytest
from hypothesis import example
from hypothesis import given

import Products
from tests.fuzz import examples
from tests.fuzz.configurations import RUDE
from tests.fuzz.configurations import spoilt
from tests.fuzz.configurations import written
from zasync_client import config
from zasync_client.errors import ConfigurationError


#: An example that takes longer hangs, or will with a longer file. Processor seconds.
SECONDS_MOST = 5.0

HOME = b'instancehome @PLACE@\n'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """The directory of the configuration, with files to include; rude modules can be imported."""
    found = tmp_path_factory.mktemp('conf')
    for name, text in RUDE.items():
        (found / f'{name}.py').write_text(text)
    (found / 'other.conf').write_text('threads 3\n')
    (found / 'loop.conf').write_text('%include loop2.conf\n')
    (found / 'loop2.conf').write_text('%include loop.conf\n')
    (found / 'latin.conf').write_bytes(b'# caf\xe9\n')
    sys.path.append(str(found))
    yield found
    sys.path.remove(str(found))
    for name in RUDE:
        sys.modules.pop(name, None)


@contextlib.contextmanager
def as_before():
    """What reading a configuration may do to its process is undone."""
    environment, path, products = dict(os.environ), list(sys.path), Products.__path__
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        Products.__path__ = products


def judged(raw, place):
    """Read these bytes as a zasync.conf both ways; → what was said of them, [] if it is good."""
    path = place / 'zasync.conf'
    path.write_bytes(raw.replace(b'@PLACE@', os.fsencode(place)))
    begin = time.process_time()
    with as_before():
        said = _surveyed(path)
    with as_before():
        try:
            _check_values(config.load(str(path)))
            refusal = None
        except ConfigurationError as reason:
            refusal = str(reason)
            _check_sentence(refusal, place)
    assert time.process_time() - begin < SECONDS_MOST
    # Of several mistakes load may meet another one first; that there is one they agree on.
    assert (refusal is None) == (said == []), (refusal, said)
    return said


def _surveyed(path):
    try:
        found, reading = config.survey(path)
    except ConfigurationError as reason:
        _check_sentence(str(reason), path.parent)
        return [str(reason)]
    said = [str(problem) for problem in reading.problems]
    for sentence in said:
        _check_sentence(sentence, path.parent)
    if not said:
        _check_values(found)
    return said


def _check_sentence(text, place):
    assert str(place) in text, f'which file? {text}'
    assert '\n' not in text and '\r' not in text, text
    assert len(text) < 2000, f'nobody reads that: {text:.200}'


def _check_values(found):
    assert found.target[0] == '' and len(found.target) > 1 and all(found.target[1:])
    for number, most in ((found.threads, 1000), (found.max_conflict_attempts, 2 ** 31)):
        assert type(number) is int and 1 <= number <= most
    assert type(found.max_result_bytes) is int and found.max_result_bytes >= 1
    for seconds, least in ((found.initial_retry_seconds, 1e-300), (found.drain_seconds, 0),
                           (found.max_total_retry_seconds, 0)):
        # More than TIMEOUT_MAX is refused by every wait, in the middle of the work.
        assert least <= seconds <= 315_360_000
    assert 1 <= found.retry_growth < math.inf
    assert type(found.verbose_traceback) is bool
    for text in (*found.target, found.pid_path, found.path):
        assert '\0' not in text
    for name, plugin in found.plugins.items():
        assert name == plugin.name and callable(plugin.handler)
        assert plugin.timeout_seconds is None or 0 < plugin.timeout_seconds <= 315_360_000
        assert 1 <= plugin.attempts <= 2 ** 31
        assert 0 <= plugin.retry_delay_seconds <= 315_360_000
        assert 1 <= plugin.retry_growth < math.inf
        assert all(type(kind) is str and kind for kind in plugin.retry_on)


@given(raw=written())
@example(raw=HOME + b'%include package:os:x\n')
@example(raw=HOME + b'%include package:\n')
@example(raw=HOME + b'%include package:zasync_fuzz_exits:x\n')
@example(raw=HOME + b'%import zasync_fuzz_exits\n')
@example(raw=HOME + b'%include http://[\n')
@example(raw=HOME + b'%include data:,%00\n')
@example(raw=HOME + b'<environment>\n  A \0\n</environment>\n')
@example(raw=HOME + b'target /a\0/b\n')
@example(raw=HOME + b'<plugin x/>\n')
@example(raw=HOME + b'<zodb main/>\n')
@example(raw=HOME + b'<ssl>\n\r</ssl>\n')
@example(raw=HOME + b'x' * 100_000 + b' 5\n')
@example(raw=HOME + b'drain-seconds 1e308\n')
@example(raw=HOME + b'<plugin x>\n  handler os.path.join\n  attempts 99999999999\n</plugin>\n')
@example(raw=HOME + b'max-result-size ' + b'9' * 5000 + b'GB\n')
@examples(150)
def test_what_is_written_anyhow_is_read_or_refused_with_a_sentence(place, raw):
    judged(raw, place)


@given(raw=spoilt())
@example(raw=HOME + b'<eventlog>\n  <logfile>\n    path STDOUT\n    format %(no)s\n  </logfile>\n'
                    b'</eventlog>\n')
@examples(100)
def test_a_good_file_that_was_spoilt_is_read_or_refused_with_a_sentence(place, raw):
    judged(raw, place)


def test_names_that_stand_for_one_another_do_not_fill_the_memory(place):
    lines = [b'%define A ' + b'x' * 100] + [
        b'%%define %s %s' % (bytes([letter]), b'$%s' % bytes([letter - 1]) * 10)
        for letter in range(ord('B'), ord('K'))]
    said = judged(HOME + b'\n'.join(lines) + b'\n', place)
    assert 'line 5' in said[0] and 'more than 10,000 characters' in said[0]


def test_a_byte_order_mark_is_no_mistake(place):
    assert judged(b'\xef\xbb\xbf' + HOME + b'%include other.conf\n', place) == []


def test_a_pipe_is_not_waited_for(place):
    os.mkfifo(place / 'pipe.conf')
    text, = judged(HOME + b'\n%include pipe.conf\n', place)
    assert 'line 3' in text and 'pipe.conf is no file' in text


def test_a_server_on_the_network_is_not_asked(place):
    text, = judged(HOME + b'%include http://127.0.0.1:1/x\n', place)
    assert 'line 2' in text and 'no file' in text


@pytest.mark.parametrize('raw', [
    HOME + b'%include package:os:x\nthreads 0\n<plugin x/>\n',
    b'\xff\xfe\0', HOME + b'<plugin zasync\0>\n'])
def test_the_command_ends_with_2_and_a_sentence(place, raw):
    path = place / 'command.conf'
    path.write_bytes(raw.replace(b'@PLACE@', os.fsencode(place)))
    done = subprocess.run([sys.executable, '-m', 'zasync_client', '-C', path, 'check'], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2
    assert f'error: {path}' in done.stderr and 'Traceback' not in done.stderr + done.stdout
