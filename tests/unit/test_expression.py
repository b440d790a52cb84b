"""The TALES evaluator: refused at the door, or compiled and evaluated as the caller."""

import pytest

from Products.zasync import expression
from Products.zasync.errors import BadCall


@pytest.mark.parametrize('text', [
    'python:1', 'python: 1', 'python: here.synchronize(light=request.light)', 'here/title',
    'string:${here/title} and more', 'nothing', 'exists:here/title', 'not:nothing',
    'python:home.portal.portal_webmail.box_bob.synchronize(light=1)', 'nocall:here/title',
    'python:[x for x in (1, 2) if x]', 'here/title | nothing'])
def test_an_expression_that_compiles_passes_the_door(text):
    expression.check(text)


@pytest.mark.parametrize('text, word', [
    ('python:', ''), ('python:(', ''), ('python:1 +', ''), ('python:def f(): pass', ''),
    ('python:x = 1', ''), ('python:here._private()', '_private'),
    ('python:here.__class__', '__class__'), ('string:${', ''), ('python:yield 1', ''),
    ('nosuchtype:here', ''), ('here//title', ''), ('python:exec("1")', '')])
def test_an_expression_that_can_not_be_compiled_is_refused_with_itself_and_the_reason(text, word):
    with pytest.raises(BadCall) as refusal:
        expression.check(text)
    assert isinstance(refusal.value, ValueError)
    assert repr(text) in str(refusal.value)
    assert word in str(refusal.value)
    assert len(str(refusal.value)) > len(repr(text)) + 30


@pytest.mark.parametrize('text', [None, 5, b'python:1', ['python:1'], ('python:1',), {}])
def test_an_expression_that_is_no_text_is_refused(text):
    with pytest.raises(BadCall) as refusal:
        expression.check(text)
    assert 'no text' in str(refusal.value)


@pytest.mark.parametrize('text, names, value', [
    ('python:1 + 1', {}, 2),
    ('python:a + b', {'a': 1, 'b': 2}, 3),
    ('nothing', {}, None),
    ('string:${a}!', {'a': 'x'}, 'x!'),
    ('python:options', {}, {}),
    ('python:len(a)', {'a': [1, 2]}, 2),
])
def test_an_expression_is_evaluated_with_the_names_it_was_given(text, names, value):
    assert expression.evaluate(text, names) == value


def test_the_names_of_one_evaluation_are_not_there_in_the_next():
    assert expression.evaluate('python:secret', {'secret': 5}) == 5
    with pytest.raises(NameError):
        expression.evaluate('python:secret', {})


def test_an_error_inside_an_expression_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        expression.evaluate('python:1 / 0', {})
