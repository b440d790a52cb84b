"""A call as the commands show it: everything, bounded, whatever it holds."""

import json
import pickle
from types import SimpleNamespace

from Products.zasync.board import Progress
from Products.zasync.call import Caller
from Products.zasync.deferred import Attempt
from Products.zasync.failure import Failure
from zasync_client import callview


def call(**more):
    """What a Deferred has, as the view reads it."""
    facts = {
        'id': '3f-1-1a20c469d04-042b5603', 'plugin': 'zope_exec', 'state': 'new', 'ended': False,
        'caller': Caller('bob', ('', 'acl_users')), 'session': None, 'put_at': 1_000_000.0,
        'started_at': None, 'ended_at': None, 'not_before': 0.0, 'expires_at': None,
        'priority': 0, 'timeout_seconds': None, 'retry': None, 'key': None, 'series': None,
        'attempts': (), 'progress': None, 'failure': None, '_memo': None, '_result': None,
        '_arguments': pickle.dumps(((1,), {'a': 2}))}
    return SimpleNamespace(**{**facts, **more})


def shown(**more):
    return '\n'.join(callview.lines(callview.details(call(**more))))


def test_a_fresh_call_is_shown_in_a_few_lines():
    assert shown() == ('id:           3f-1-1a20c469d04-042b5603\n'
                       'plugin:       zope_exec\n'
                       'state:        new\n'
                       'caller:       bob of /acl_users\n'
                       'session call: no\n'
                       'put:          1970-01-12 13:46:40 UTC\n'
                       'priority:     0\n'
                       "arguments:    ((1,), {'a': 2})")


def test_options_attempts_and_progress_are_shown():
    text = shown(
        priority=5, timeout_seconds=30.0, retry=(3, 5.0, 2.0, 60.0, ('OSError',)), key='k',
        series='s', not_before=1_000_010.0, expires_at=1_000_020.0,
        _memo=pickle.dumps({'done': 2}), state='accepted',
        progress=Progress(3, 10, 'half\x1b way'),
        attempts=(Attempt(1, 1_000_001.0, 1_000_002.0, 'interrupted'),
                  Attempt(2, 1_000_003.0, None, None)))
    for words in ('priority:     5', 'timeout:      30', 'key:          k', 'series:       s',
                  'retry:        3 attempts on OSError, 5 s apart, growing by 2 to 60 s',
                  'not before:   1970-01-12 13:46:50 UTC', 'expires:      1970-01-12 13:47:00 UTC',
                  'progress:     3 of 10 half\\x1b way', "memo:         {'done': 2}",
                  '1        1970-01-12 13:46:41  1970-01-12 13:46:42  interrupted',
                  '2        1970-01-12 13:46:43  -                    runs'):
        assert words in text


def test_a_call_that_may_never_run_twice_says_so():
    assert 'retry:        never twice' in shown(retry=())


def test_a_failure_is_shown_with_its_traceback_and_without_its_escapes():
    text = shown(state='failed', ended=True, ended_at=1_000_009.0,
                 failure=Failure('ValueError', 'bad\x1b]0;title\x07', 'Traceback:\n\tline\x1b[1m'))
    assert 'failure:      ValueError: bad\\x1b]0;title\\x07' in text
    assert text.endswith('Traceback:\n        line\\x1b[1m')


def test_a_result_of_a_class_that_is_not_here_is_shown_by_its_name():
    text = shown(state='resolved', ended=True, _result=b'(S"x"\nino_such_module\nThing\n.')
    assert text.endswith("result:       no_such_module.Thing('x')")


def test_a_result_that_can_not_be_read_is_told_in_a_sentence():
    assert 'result:       (can not be shown: ' in shown(state='resolved', _result=b'nonsense')


def test_a_big_result_is_bounded():
    text = shown(state='resolved', _result=pickle.dumps('x' * 1_000_000))
    assert len(text) < 3_000


def test_a_list_is_a_table_with_a_remark_each():
    lines = callview.listed([callview.summary(each) for each in (
        call(), call(state='accepted', progress=Progress(3, None, 'lines')),
        call(state='failed', failure=Failure('ValueError', 'x' * 100)),
        call(caller=Caller(None, None, 'nobody'), plugin='with\nnewline'))])
    assert lines[0].split() == ['ID', 'PLUGIN', 'STATE', 'USER', 'PUT', 'AT', '(UTC)', 'ATTEMPTS',
                                'REMARK']
    start = lines[0].index('REMARK')
    assert lines[2][start:] == '3 lines'
    assert lines[3][start:] == 'ValueError: ' + 'x' * 47 + '…'
    assert 'with\\nnewline' in lines[4] and ' nobody ' in lines[4]


def test_details_and_summaries_are_plain_values():
    json.dumps([callview.details(call(progress=Progress(1))), callview.summary(call())])
