"""The stored password of a mailbox: sealed, opened where it is used, sealed anew; and without a
key."""

import io
import os

import pytest
import transaction

from Products.CPSMailAccess import credentials
from Products.CPSMailAccess import errors
from Products.CPSMailAccess import mailtool
from Products.zasync.sealed import Sealed
from tests.secretkeys import configured
from tests.secretkeys import new_key

from .conftest import fill
from .conftest import in_call
from .servers import PASSWORD


def stored(box):
    return box._own['password']


def make_plain(box, password=PASSWORD):
    """Have the password in the database as an earlier version left it there."""
    box._own = {**box._own, 'password': password}
    transaction.commit()


def add_boxes(site, *names):
    boxes = [mailtool.add_mail_box(site.tool, name, password='hush-' + name) for name in names]
    transaction.commit()
    return boxes


def exported(box):
    file = io.BytesIO()
    box._p_jar.exportFile(box._p_oid, file)
    return file.getvalue()


def test_a_password_is_sealed_in_the_database_and_in_an_export(site):
    (box,) = add_boxes(site, 'carol')
    data, _serial = site.database.storage.load(box._p_oid)
    for text in (data, exported(box)):
        assert b'carol' in text and b'hush-carol' not in text and stored(box).token in text
    assert 'hush' not in repr(vars(box))
    assert box._account().password == 'hush-carol'


def test_without_a_key_no_password_is_stored_and_all_else_works(site, pymap):
    box = site.add_box(pymap.port)
    with configured(None):
        with pytest.raises(ValueError, match='^password: A password can not be stored: no secret '
                                             'key is configured: .*"zasync_client key" makes one'):
            mailtool.add_mail_box(site.tool, 'carol', password='hush')
        assert site.tool.objectIds() == ['box_alice']
        before = dict(box._own)
        with pytest.raises(errors.PasswordNotSealed):
            box.set_parameters({'HOST': 'elsewhere', 'password': 'hush'})
        assert box._own == before
        assert mailtool.add_mail_box(site.tool, 'carol').getId() == 'box_carol'
        box.set_parameters({'READ_SECONDS': 3.0, 'password': ''})
        assert box._own['READ_SECONDS'] == 3.0


def test_a_problem_of_the_form_is_told_beside_that_of_the_key(site):
    with configured(None):
        values, problems = credentials.check({'PORT': 'x', 'password': 'hush'},
                                             ('PORT', 'password'))
        assert values == {} and sorted(problems) == ['PORT', 'password']
        values, problems = credentials.check({'password': 'a\nb'}, ('password',))
        assert problems == {'password': 'No control characters or line breaks here.'}


@pytest.fixture
def untold():
    """No warning was given yet."""
    credentials._told.clear()
    yield
    credentials._told.clear()


def test_a_plain_password_works_is_warned_of_once_and_is_sealed_anew(site, pymap, caplog, untold):
    fill(pymap, 1)
    box = site.add_box(pymap.port)
    make_plain(box)
    for _ in range(2):
        with in_call():
            box.synchronize()
    assert box.sync_report()['state'] == 'done'
    assert caplog.text.count('/portal_webmail/box_alice is stored as plain text') == 1
    assert PASSWORD not in caplog.text
    assert site.tool.seal_passwords()[credentials.ANEW] == ['box_alice']
    transaction.commit()
    assert isinstance(stored(box), Sealed) and box._account().password == PASSWORD
    with in_call():
        box.synchronize()
    assert box.sync_report()['state'] == 'done'


def test_passwords_are_sealed_anew_with_the_newest_key_and_then_the_old_one_may_go(
        site, key_file):
    old_box, plain_box, new_box, lost_box = add_boxes(site, 'old', 'plain', 'new', 'lost')
    mailtool.add_mail_box(site.tool, 'nobody')
    make_plain(plain_box, 'hush-plain')
    old_key = key_file.replace()
    lost_box.set_parameters({'password': 'hush-lost'})
    newest = new_key()
    key_file.write(newest + old_key)
    new_box.set_parameters({'password': 'hush-new'})
    transaction.commit()
    before = stored(new_box), stored(lost_box)
    found = site.tool.seal_passwords()
    assert found == {'none': ['box_nobody'], 'kept': ['box_new'],
                     'anew': ['box_old', 'box_plain'], 'unreadable': ['box_lost']}
    assert (stored(new_box), stored(lost_box)) == before
    key_file.write(newest)
    assert [box._account().password for box in (old_box, plain_box, new_box)] == [
        'hush-old', 'hush-plain', 'hush-new']
    text = credentials.sealing_summary(found)
    assert text.startswith('2 sealed anew; 1 were sealed') and 'key: box_lost.' in text


def test_nothing_is_sealed_anew_without_a_key(site):
    box, = add_boxes(site, 'carol')
    make_plain(box, 'hush')
    with configured(None), pytest.raises(errors.PasswordNotSealed, match='Nothing can be sealed'):
        site.tool.seal_passwords()
    assert stored(box) == 'hush'


def test_in_a_worker_sealing_anew_commits_as_it_goes(site, key_file, monkeypatch):
    monkeypatch.setattr(credentials, 'BATCH_SIZE', 2)
    add_boxes(site, 'a', 'b', 'c', 'd', 'e')
    key_file.write(new_key() + key_file.text())
    with in_call() as call:
        assert len(site.tool.seal_passwords()['anew']) == 5
    assert call.commits == 2


def test_the_key_of_the_passwords_is_lost(site, pymap, key_file):
    fill(pymap, 1)
    box = site.add_box(pymap.port)
    old_key = key_file.replace()
    with pytest.raises(errors.PasswordUnreadable), in_call():
        box.synchronize()
    report = box.sync_report()
    assert report['state'] == 'failed'
    assert report['reason'] == (
        'The stored password can not be read: none of the keys in %s opens it. Type the password '
        'again, or restore the key.' % key_file.path)
    assert box.password_problem() == report['reason']
    # The others are not concerned, nor is what needs no password.
    other = mailtool.add_mail_box(site.tool, 'carol', password='hush')
    assert other._account().password == 'hush' and other.password_problem() == ''
    box.set_parameters({'READ_SECONDS': 5.0})
    transaction.commit()
    # Restored:
    key_file.write(key_file.text() + old_key)
    with in_call('call-2'):
        box.synchronize()
    assert box.sync_report()['state'] == 'done' and box.password_problem() == ''
    # Typed again:
    os.unlink(key_file.path)
    assert 'there is no file of secret keys' in box.password_problem()
    key_file.write(new_key())
    box.set_parameters({'password': PASSWORD})
    with in_call('call-3'):
        box.synchronize()
    assert box.sync_report()['state'] == 'done'

