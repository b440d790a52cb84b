"""parameters and presentation: what forms send, what pages show."""

import pytest

from Products.CPSMailAccess import parameters
from Products.CPSMailAccess import presentation
from Products.CPSMailAccess.mailbox import MailBox
from Products.CPSMailAccess.zmi import fields


def test_flags_of_the_tool_decide_whose_value_counts():
    pairs = {'HOST': ('portal', parameters.PORTAL_WIDE), 'PORT': (143, parameters.PER_BOX),
             'CA_FILE': ('/ca', parameters.NOT_IN_BOXES)}
    own = {'HOST': 'mine', 'PORT': 993, 'CA_FILE': '/mine', 'login': 'me'}
    values = parameters.effective(pairs, own)
    assert (values['HOST'], values['PORT'], values['CA_FILE'], values['login']) == (
        'portal', 993, '/ca', 'me')
    assert 'HOST' not in parameters.settable_names(pairs)
    assert 'CA_FILE' not in parameters.settable_names(pairs)
    assert {'PORT', 'login', 'password'} <= set(parameters.settable_names(pairs))


def test_mailbox_without_a_value_of_its_own_takes_the_default():
    assert parameters.effective({'PORT': (1143, parameters.PER_BOX)}, {})['PORT'] == 1143


@pytest.mark.parametrize('name, text, value', [
    ('PORT', ' 993 ', 993), ('SSL', '2', 2), ('HOST', 'imap.example.org', 'imap.example.org'),
    ('HOST', '::1', '::1'), ('READ_SECONDS', '2.5', 2.5), ('password', ' s p ', ' s p '),
    ('connection_type', 'IMAP', 'IMAP')])
def test_good_texts_become_values(name, text, value):
    assert parameters.check({name: text}, [name]) == ({name: value}, {})


@pytest.mark.parametrize('name, text', [
    ('PORT', ''), ('PORT', '1.5'), ('PORT', '70000'), ('READ_SECONDS', 'nan'),
    ('READ_SECONDS', 'inf'), ('READ_SECONDS', '0'), ('SSL', ''), ('HOST', ''),
    ('HOST', 'a/b'), ('HOST', 'u@h'), ('login', 'a\x00b'), ('password', 'a\nb'),
    ('login', 'x' * 501), ('connection_type', 'POP3')])
def test_bad_texts_become_sentences(name, text):
    values, problems = parameters.check({name: text}, [name])
    assert not values and problems[name].endswith('.')


def test_only_names_asked_for_are_taken():
    assert parameters.check({'CA_FILE': '/etc/passwd'}, ['HOST']) == ({}, {})


def test_secret_value_never_gets_into_a_field():
    assert 'hush' not in str(fields.field('password', 'hush'))


def test_mailbox_shows_no_password():
    box = MailBox('box_x', password='hush')
    assert 'hush' not in repr(box) and 'hush' not in str(box)
    assert 'hush' not in repr(parameters.account(box._effective()))


def test_mailbox_refuses_unknown_parameters():
    with pytest.raises(ValueError, match='unknown parameters: X'):
        MailBox('box_x', X=1)


@pytest.mark.parametrize('seconds, text', [
    (1121083500.0, '2005-07-11 12:05 UTC'), (0.0, '1970-01-01 00:00 UTC'), (None, ''),
    (1e18, ''), (-1e18, ''), (float('nan'), '')])
def test_moments(seconds, text):
    assert presentation.moment(seconds) == text


@pytest.mark.parametrize('count, text', [
    (0, '0 B'), (999, '999 B'), (1500, '1.5 kB'), (34_000, '34 kB'), (12_000_000, '12 MB'),
    (5_000_000_000, '5.0 GB')])
def test_sizes(count, text):
    assert presentation.size(count) == text


@pytest.mark.parametrize('done, total, percent', [(0, 0, 0), (1, 3, 33), (3, 3, 100), (5, 3, 100)])
def test_percent(done, total, percent):
    assert presentation.percent(done, total) == percent


def test_flags_are_named_and_seen_is_not_one_of_them():
    assert presentation.flag_names({'\\Seen', '\\Answered', '$label'}) == ['$label', 'answered']


@pytest.mark.parametrize('address, name', [
    ('Bob <bob@example.com>', 'Bob'), ('"Bob, B" <b@example.com>', 'Bob, B'),
    ('<bob@example.com>', 'bob@example.com'), ('bob@example.com', 'bob@example.com'),
    ('', ''), ('<', '<')])
def test_a_list_shows_the_name_of_a_sender_or_else_the_address(address, name):
    assert presentation.name_of(address) == name


def test_a_long_subject_is_cut_in_a_list():
    assert presentation.shortened('x' * 120) == 'x' * 120
    assert presentation.shortened('x' * 1500) == 'x' * 119 + '…'
