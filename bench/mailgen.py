"""Mail as people get it: threads, many alphabets, attachments, and what is broken in real life.

    for folder, message, flags, date in messages(seed=1, user='alice', count=100): ...

The same seed, user and count give the same bytes, on every machine and in every version of
Python: nothing here asks for the time, and the bytes are put together by hand. Every FEATURES
block of messages has each feature once, so 100 messages have them all several times.

Imports: nothing of ours.
"""

import base64
import quopri
import random
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from datetime import UTC
from email.header import Header
from email.utils import format_datetime
from typing import NamedTuple
from urllib.parse import quote


class Mail(NamedTuple):
    folder: str
    message: bytes
    flags: tuple
    date: datetime  #: the internal date, when it arrived


#: Folders, in the proportions in which messages fall into them.
FOLDERS = (['INBOX'] * 8 + ['Lists/zope-dev'] * 4 + ['Archive/2005'] * 3 + ['Sent'] * 3
           + ['Entwürfe'] * 2)

#: When the first message arrives.
FIRST_DATE = datetime(2004, 11, 8, 9, 0, tzinfo=UTC)

CRLF = b'\r\n'

NAMES = [
    ('Ada Ferrand', 'ada.ferrand'), ('Bert Okafor', 'bert'), ('Carla Nilsen', 'cnilsen'),
    ('Dimitri Vasquez', 'dv'), ('Elif Schreiber', 'elif.schreiber'), ('Frank Oduya', 'frank'),
    ('Grete Halvorsen', 'grete'), ('Hugo Lindqvist', 'hlindqvist'), ('Ines Moreau', 'ines'),
    ('Jiro Tanabe', 'jiro'), ('Katja Brandt', 'kbrandt'), ('Luis Paredes', 'luis'),
]
FOREIGN_NAMES = {
    'utf-8': ['Łucja Wójcik', 'Đorđe Petrović', 'Ελένη Παππά', 'Зоя Орлова', 'Nguyễn Văn Bình'],
    'iso-8859-1': ['Jürgen Größler', 'Françoise Hébert', 'Åsa Sjöström', 'Íñigo Muñoz'],
    'iso-2022-jp': ['田辺次郎', '鈴木花子', '高橋直人'],
}
FOREIGN_SUBJECTS = {
    'utf-8': ['Ζητήματα για τη συνάντηση', 'Отчёт за третий квартал', 'Przegląd zmian – część 2',
              'Größe der Datenbank: 4 GB → 11 GB', 'Lịch họp tuần tới'],
    'iso-8859-1': ['Rückfrage zur Übergabe', 'Réunion reportée à jeudi', 'Årsmöte på måndag',
                   'Señal débil en el piso 3'],
    'iso-2022-jp': ['会議の議事録', '来週の予定について', '見積書をお送りします'],
}
FOREIGN_LINES = {
    'utf-8': ['Сервер отвечает медленно с утра.', 'Η λίστα είναι συνημμένη.',
              'Zażółć gęślą jaźń – to tylko próba.'],
    'iso-8859-1': ['Die Übergabe verzögert sich um zwei Tage.', 'Voilà le relevé demandé.',
                   'Vi hörs på fredag i så fall.'],
    'iso-2022-jp': ['お世話になっております。', '資料を添付いたします。',
                    'よろしくお願いします。'],
}
TOPICS = ['catalog', 'upgrade', 'backup', 'minutes', 'invoice', 'release', 'indexing', 'cache',
          'session', 'workflow', 'search results', 'undo log', 'page template', 'user folder']
OPENERS = ['Problem with the %s', 'New %s', '%s: what is left', 'Question about %s',
           'Draft of the %s', '%s on the test server', 'Please look at the %s', 'Lost %s']
WORDS = ('the a we you this that server page folder index query object request site user value '
         'list script product report office group meeting again before after still never often '
         'shows takes needs gives moves works fails changes slow new old small whole next last '
         'Monday morning yesterday today thanks maybe however because without under').split()
BROKEN_DATES = [
    b'Tue, 31 Feb 2004 25:61:00 +0000', b'yesterday, about noon', b'', b'2004-13-45T99:99:99Z',
    b'Mon, 08 Nov 104 10:00:00 GMT', b'Fri, 12 Nov 2004 08:15:00 +9961', b'\xfcbermorgen',
]


def messages(seed, user, count):
    """Yield `count` Mails for a user, oldest first."""
    writer = Writer(random.Random('%s/%s' % (seed, user)), user)
    for _ in range(count):
        yield writer.next()


class Writer:
    """Writes one user's mail, message by message; remembers what can be answered."""

    def __init__(self, rng, user):
        self.rng = rng
        self.me = (user.replace('_', ' ').title(), '%s@example.org' % user)
        self.sent = []  # (Message-ID, subject, References) of what was written so far
        self.date = FIRST_DATE
        self._features = []
        self._folders = []

    def next(self):
        if not self._features:
            self._features = self.rng.sample(FEATURES, len(FEATURES))
        if not self._folders:
            self._folders = self.rng.sample(FOLDERS, len(FOLDERS))
        feature, folder = self._features.pop(), self._folders.pop()
        self.date += timedelta(seconds=self.rng.randrange(60, 40000))
        draft = Draft(self, folder)
        feature(draft)
        self.sent.append((draft.message_id, draft.subject, draft.references))
        return Mail(folder, draft.as_bytes(), self._flags(folder), self.date)

    def _flags(self, folder):
        flags = {r'\Seen'} if self.rng.random() < 0.7 or folder != 'INBOX' else set()
        if self.rng.random() < 0.15:
            flags |= {r'\Answered', r'\Seen'}
        if self.rng.random() < 0.05:
            flags.add(r'\Flagged')
        if folder == 'Entwürfe':
            flags.add(r'\Draft')
        return tuple(sorted(flags))

    def token(self, length=12):
        return '%0*x' % (length, self.rng.getrandbits(4 * length))

    def line(self):
        words = self.rng.choices(WORDS, k=self.rng.randrange(4, 13))
        return (' '.join(words)).capitalize() + self.rng.choice('..?!')

    def text(self):
        """A few paragraphs, as a list of lines."""
        lines = []
        for _ in range(self.rng.randrange(1, 6)):
            lines += [self.line() for _ in range(self.rng.randrange(1, 6))] + ['']
        return lines


class Draft:
    """One message in the making: an ordinary one, until a feature changes it."""

    def __init__(self, writer, folder):
        rng = writer.rng
        self.writer, self.rng = writer, rng
        name, local = rng.choice(NAMES)
        other = (name, '%s@example.%s' % (local, rng.choice(['com', 'net', 'org'])))
        self.sender, self.recipient = other, writer.me
        if folder in ('Sent', 'Entwürfe'):
            self.sender, self.recipient = writer.me, other
        elif folder.startswith('Lists/'):
            self.recipient = ('zope-dev', 'zope-dev@lists.example.org')
        self.subject = (rng.choice(OPENERS) % rng.choice(TOPICS)).encode('ascii')
        zone = timezone(timedelta(hours=rng.choice([-8, -5, 0, 1, 2, 9])))
        self.date = format_datetime(writer.date.astimezone(zone)).encode('ascii')
        self.message_id = ('<%s.%s@%s>' % (writer.token(8), writer.token(), self.sender[1]
                                           .partition('@')[2])).encode('ascii')
        self.references = []
        self.sender_name = self.sender[0].encode('ascii')
        self.headers = []  # more (name, value), bytes
        self.mime = [(b'Content-Type', b'text/plain; charset=us-ascii')]
        self.body = CRLF.join(line.encode('ascii') for line in writer.text())
        if folder.startswith('Lists/'):
            self.headers += [(b'List-Id', b'Zope developers <zope-dev.lists.example.org>'),
                             (b'Precedence', b'list')]

    def as_bytes(self):
        fields = [(b'Received', b'from mail.example.net (mail.example.net [192.0.2.%d])' %
                   self.rng.randrange(1, 255)),
                  (b'From', self.sender_name + b' <' + self.sender[1].encode('ascii') + b'>'),
                  (b'To', ('%s <%s>' % self.recipient).encode('ascii')),
                  (b'Subject', self.subject)]
        if self.date is not None:
            fields.append((b'Date', self.date))
        if self.message_id is not None:
            fields.append((b'Message-ID', self.message_id))
        if self.references:
            fields += [(b'In-Reply-To', self.references[-1]),
                       (b'References', b'\r\n '.join(self.references))]
        fields += self.headers + [(b'MIME-Version', b'1.0')] + self.mime
        head = b''.join(b'%s: %s\r\n' % field for field in fields)
        return head + CRLF + self.body

    def write_in(self, charset):
        """Subject, sender's name and body in an encoding, marked as the standards ask."""
        rng = self.rng
        lines = rng.choices(FOREIGN_LINES[charset], k=rng.randrange(1, 8))
        text = '\r\n'.join(lines).encode(charset)
        self.subject = encoded_word(rng.choice(FOREIGN_SUBJECTS[charset]), charset)
        self.sender_name = encoded_word(rng.choice(FOREIGN_NAMES[charset]), charset)
        transfer, self.body = {
            'utf-8': (b'base64', base64_lines(text)),
            'iso-8859-1': (b'quoted-printable', crlf(quopri.encodestring(text))),
            'iso-2022-jp': (b'7bit', text),
        }[charset]
        self.mime = [(b'Content-Type', b'text/plain; charset=%s' % charset.encode('ascii')),
                     (b'Content-Transfer-Encoding', transfer)]

    def join(self, subtype, parts):
        """Make the body a multipart of (list of header lines, content)."""
        boundary = ('=_%s' % self.writer.token(24)).encode('ascii')
        pieces = [b''.join(line + CRLF for line in head) + CRLF + content + CRLF
                  for head, content in parts]
        delimiter = b'--' + boundary
        self.body = b''.join(delimiter + CRLF + piece for piece in pieces) + delimiter + b'--\r\n'
        self.mime = [(b'Content-Type', b'multipart/%s; boundary="%s"' % (subtype, boundary))]


# -- features: each makes a draft special in one way ---------------------------------------------

def plain(draft):
    """As it is."""


def reply(draft):
    """An answer to an earlier message, with the quoted line above."""
    older = [item for item in draft.writer.sent[-30:] if item[0] is not None]
    if not older:
        return
    message_id, subject, references = draft.rng.choice(older)
    draft.references = references[-8:] + [message_id]
    draft.subject = subject if subject.startswith(b'Re: ') else b'Re: ' + subject
    draft.body = b'> ' + draft.writer.line().encode('ascii') + CRLF + CRLF + draft.body


def in_utf8(draft):
    draft.write_in('utf-8')


def in_latin1(draft):
    draft.write_in('iso-8859-1')


def in_japanese(draft):
    draft.write_in('iso-2022-jp')


def raw_8bit_headers(draft):
    """Headers in an encoding nobody named, as many programs still send them."""
    charset = draft.rng.choice(['utf-8', 'iso-8859-1'])
    draft.subject = draft.rng.choice(FOREIGN_SUBJECTS[charset]).encode(charset)
    draft.sender_name = draft.rng.choice(FOREIGN_NAMES[charset]).encode(charset)


def attachment(draft):
    """A file whose name is not ASCII (RFC 2231), in one piece or in two."""
    name = draft.rng.choice(['Übersicht März.pdf', 'relevé_été.xls', '予定表.doc', 'отчёт.odt'])
    spelt = quote(name).encode('ascii')
    if draft.rng.random() < 0.5:
        parameter = b"filename*=UTF-8''" + spelt
    else:
        half = 3 * len(spelt) // 6  # within an escape: readers join before they decode
        parameter = b"filename*0*=UTF-8''%s;\r\n filename*1*=%s" % (spelt[:half], spelt[half:])
    data = draft.rng.randbytes(draft.rng.randrange(1000, 20000))
    draft.join(b'mixed', [
        ([b'Content-Type: text/plain; charset=us-ascii'], draft.body),
        ([b'Content-Type: application/octet-stream', b'Content-Transfer-Encoding: base64',
          b'Content-Disposition: attachment; ' + parameter], base64_lines(data))])


def html_alternative(draft):
    """The same said twice, as text and as HTML."""
    page = (b'<html><body><p style="font-family: sans-serif">'
            + draft.body.replace(CRLF, b'<br>\r\n') + b'</p></body></html>')
    draft.join(b'alternative', [([b'Content-Type: text/plain; charset=us-ascii'], draft.body),
                                ([b'Content-Type: text/html; charset=us-ascii'], page)])


def broken_date(draft):
    draft.date = draft.rng.choice(BROKEN_DATES)


def no_date(draft):
    draft.date = None


def no_message_id(draft):
    draft.message_id = None


def duplicate_message_id(draft):
    """The Message-ID of an earlier message, as a copy through a list has it."""
    older = [item for item in draft.writer.sent if item[0] is not None]
    if older:
        draft.message_id, draft.subject, draft.references = draft.rng.choice(older)


def long_headers(draft):
    """A subject longer than a line may be (998), and a References field of sixty."""
    draft.subject = ' '.join(draft.writer.line() for _ in range(40))[:1500].encode('ascii')
    draft.references = [b'<%d.%s@example.com>' % (n, draft.writer.token().encode('ascii'))
                        for n in range(60)]


def garbage_header(draft):
    """A line without a colon, and one with a NUL's neighbours, among the headers."""
    draft.headers += [(b'X-Scanner', b'clean\r\nthis line has no name'),
                      (b'X-Noise', b'\x01\x02 \xff\xfe')]


def empty_body(draft):
    draft.body = b''


FEATURES = [plain, reply, reply, reply, in_utf8, in_latin1, in_japanese, raw_8bit_headers,
            attachment, html_alternative, broken_date, no_date, no_message_id,
            duplicate_message_id, long_headers, garbage_header, empty_body]


# -- spelling ------------------------------------------------------------------------------------

def encoded_word(text, charset):
    """RFC 2047, folded when it is long."""
    header = Header(text, charset, header_name='Subject').encode(linesep='\r\n')
    return header.encode('ascii')


def base64_lines(data):
    return crlf(base64.encodebytes(data))


def crlf(data):
    return data.replace(b'\r\n', b'\n').replace(b'\n', b'\r\n')
