"""Every method of a published class says whether and how it is published, and to whom."""

import inspect

import pytest
from zope.interface.verify import verifyClass
from ZPublisher import zpublish_mark

from Products.CPSMailAccess import imap
from Products.CPSMailAccess import interfaces
from Products.CPSMailAccess import mailbox
from Products.CPSMailAccess import mailfolder
from Products.CPSMailAccess import mailmessage
from Products.CPSMailAccess import mailtool

from .fakes import FakeSession


CLASSES = (mailtool.MailTool, mailbox.MailBox, mailfolder.MailFolder, mailmessage.MailMessage)

#: What a GET may show. Everything else that is published wants a POST.
GETS = {'manage_main', 'index_html', 'manage_workspace', 'manage_syncStatus',
        'manage_settingsForm', 'manage_defaultsForm'}


def methods():
    seen = set()
    for klass in CLASSES:
        for base in klass.__mro__:
            if not base.__module__.startswith('Products.CPSMailAccess'):
                continue
            for name, value in vars(base).items():
                if inspect.isfunction(value) and not name.startswith('_') \
                        and (base, name) not in seen:
                    seen.add((base, name))
                    yield pytest.param(base, name, value, id='%s.%s' % (base.__name__, name))


@pytest.mark.parametrize('klass, name, method', list(methods()))
def test_every_method_is_marked_and_protected(klass, name, method):
    mark = zpublish_mark(method)
    assert mark is not None, 'mark it with zpublish'
    assert mark in (False, ('POST',)) or name in GETS
    assert any(hasattr(one, name + '__roles__') for one in CLASSES), 'protect it'


@pytest.mark.parametrize('klass', CLASSES)
def test_everything_declared_is_there(klass):
    # Else Zope logs a "security declaration for nonexistent method" at each start.
    names = [name for permission in klass.__ac_permissions__ for name in permission[1]]
    assert names and not [name for name in names if name and not hasattr(klass, name)]


@pytest.mark.parametrize('factory', ['addMailTool', 'addMailBox'])
def test_factories_want_a_post(factory):
    assert zpublish_mark(getattr(mailtool, factory)) == ('POST',)


@pytest.mark.parametrize('interface, klass', [
    (interfaces.IMailTool, mailtool.MailTool), (interfaces.IMailBox, mailbox.MailBox),
    (interfaces.IMailFolder, mailfolder.MailFolder),
    (interfaces.IMailMessage, mailmessage.MailMessage)])
def test_classes_keep_their_interfaces(interface, klass):
    assert verifyClass(interface, klass)


@pytest.mark.parametrize('klass', [imap.ImapSession, FakeSession])
def test_sessions_real_and_fake_keep_the_interface(klass):
    assert verifyClass(interfaces.IMailSession, klass, tentative=True)
