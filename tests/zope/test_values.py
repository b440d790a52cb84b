"""Restricted code passes data too, and gets no more made in a worker than it could make itself."""

import io

import pytest
import transaction
from zExceptions import Unauthorized
from ZPublisher.HTTPRequest import HTTPRequest
from ZPublisher.HTTPResponse import HTTPResponse

from Products.zasync import expression
from Products.zasync.errors import BadCall


@pytest.fixture
def put(site, app, manager):
    """put(text): restricted code of bob's, who may put calls, puts `echo` with that value."""
    app.manage_permission('Make Asynchronous Application Calls', ['Member'], acquire=1)
    site.login('bob')

    def put(text, **names):
        return expression.evaluate(f"python: zam.putCall('echo', {text})",
                                   {'zam': manager, 'app': app, **names})
    yield put
    site.logout()


def posted(*fields):
    """A request as the publisher makes it of a form."""
    parts = [f'--x\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n'
             for name, value in fields]
    body = (''.join(parts) + '--x--\r\n').encode('ascii')
    made = HTTPRequest(io.BytesIO(body), {
        'REQUEST_METHOD': 'POST', 'CONTENT_TYPE': 'multipart/form-data; boundary=x',
        'CONTENT_LENGTH': str(len(body)), 'SERVER_NAME': 'localhost', 'SERVER_PORT': '80'},
        HTTPResponse(stdout=io.BytesIO()))
    made.processInputs()
    return made


@pytest.mark.parametrize('text, said', [
    ('app', 'a persistent object (Application); pass its path instead'),
    ('[app.acl_users]', 'a persistent object (UserFolder); pass its path instead'),
    ('zam.getDeferred', 'a method, '), ('user', 'a persistent object (User)'),
    ('modules', 'SecureModuleImporter'), ('request', 'pass what the call needs of it'),
    ('request.form["one"]', 'pass dict(it.items())'),
    ('request.form', 'pass dict(it.items())'),
    ('request.form["file"]', 'pass its bytes, or the path of a file they are in'),
    ('lambda: 1', 'a function, ')])
def test_what_restricted_code_can_get_hold_of_and_is_no_data_is_refused(manager, put, text, said):
    request = posted(('name="one.a:record"', '1'), ('name="file"; filename="a.txt"', 'text'))
    before = manager.lenNewCalls()
    with pytest.raises(BadCall) as refusal:
        put(text, request=request)
    assert str(refusal.value).startswith('argument 1 holds ')
    assert said in str(refusal.value)
    assert manager.lenNewCalls() == before
    request.close()


def test_the_data_in_a_form_is_taken(put):
    request = posted(('name="one.a:record"', '1'), ('name="file"; filename="a.txt"', 'text'),
                     ('name="two:int"', '2'), ('name="three:list"', '3'))
    form = request.form
    deferred = put('dict(form["one"].items()), form["file"].read(), form["two"], form["three"]',
                   form=form)
    transaction.commit()
    assert deferred.arguments() == (({'a': '1'}, b'text', 2, ['3']), {})
    request.close()


def test_restricted_code_declares_nothing():
    with pytest.raises(Unauthorized):
        expression.evaluate("python: modules['Products.zasync.values'].allow_value", {})
    with pytest.raises(Unauthorized):
        expression.evaluate("python: modules['Products.zasync'].allow_value", {})
