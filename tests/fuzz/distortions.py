"""What a mail server may do wrong in one answer: made up, each as a function of bytes.

Imports: hypothesis, tests.fuzz.mailserver.
"""

import re
from collections import Counter
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz.mailserver import Say


#: Commands of a synchronisation, as the server calls its answers.
ANSWERS = ('GREETING', 'CAPABILITY', 'CONTINUE', 'AUTHENTICATE', 'ENABLE', 'LIST', 'EXAMINE',
           'SEARCH', 'FLAGS', 'HEADERS', 'LOGOUT')

NUMBERS = (b'0', b'-1', b'1', b'2', b'3', b'77', b'4294967295', b'4294967296',
           b'18446744073709551616', b'9' * 400, b'9' * 5000, b'x', b'NIL', b'()', b'""', b'1.5',
           b'1e9', b'')

LINES = (
    b'* BYE going down\r\n', b'* 4000000000 EXISTS\r\n', b'* 0 EXISTS\r\n', b'* 1 EXISTS\r\n',
    b'* 2 EXPUNGE\r\n', b'* 77777 EXPUNGE\r\n' * 3, b'* 0 EXPUNGE\r\n' * 3, b'* -1 EXPUNGE\r\n',
    b'* EXPUNGE\r\n' * 3, b'* x EXISTS\r\n', b'* EXISTS\r\n', b'* OK [UIDVALIDITY 8] new\r\n',
    b'* OK [UIDVALIDITY 0] new\r\n', b'* OK [UIDVALIDITY] new\r\n',
    b'* OK [UIDVALIDITY x] new\r\n', b'* OK [UIDNEXT -7] ok\r\n',
    b'* OK [HIGHESTMODSEQ -5] ok\r\n', b'* OK [HIGHESTMODSEQ x] ok\r\n', b'* OK [CLOSED] ok\r\n',
    b'* OK [ALERT] \x1b[31mred\r\n', b'* PREAUTH welcome\r\n', b'* CAPABILITY\r\n',
    b'* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n', b'* CAPABILITY \xff\xfe\r\n', b'* FLAGS 5\r\n',
    b'* FLAGS\r\n', b'* SEARCH 1 2 3 77\r\n', b'* SEARCH\r\n', b'* SEARCH 0\r\n',
    b'* SEARCH -1\r\n', b'* SEARCH (MODSEQ 5)\r\n', b'* ESEARCH (TAG "x") ALL 1:9\r\n',
    b'* VANISHED 1:99\r\n', b'* VANISHED (EARLIER) 1:99\r\n',
    b'* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n', b'* 1 FETCH (UID 77 FLAGS ())\r\n',
    b'* 1 FETCH (FLAGS (\\Deleted))\r\n', b'* 1 FETCH (UID -1 FLAGS ())\r\n',
    b'* 1 FETCH (UID 1 FLAGS 5)\r\n', b'* 1 FETCH (UID 1 FLAGS abc)\r\n',
    b'* 1 FETCH (UID 1 FLAGS ((a) NIL 5 "q" {3}\r\nx\r\n))\r\n',
    b'* 1 FETCH (UID 1 FLAGS NIL)\r\n', b'* 1 FETCH (UID 1 FLAGS (%s))\r\n' % (b'x' * 5000),
    b'* 1 FETCH (UID (1) FLAGS ())\r\n',
    b'* 1 FETCH (UID 1 FLAGS (%s))\r\n' % b' '.join(b'f%d' % number for number in range(3000)),
    b'* 1 FETCH (UID 1 FLAGS (\xff\xfe)))\r\n', b'* 1 FETCH\r\n', b'* 1 FETCH (\r\n',
    b'* FETCH ()\r\n', b'* 1 FETCH (UID)\r\n', b'* 1 FETCH ((UID) 1)\r\n',
    b'* 1 FETCH (NIL 1 UID 1)\r\n',
    b'* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 9999999999999999999999999)\r\n',
    b'* 1 FETCH (UID 1 FLAGS () RFC822.SIZE -5 INTERNALDATE "01-Jan-0001 00:00:00 +0000")\r\n',
    b'* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 5 ENVELOPE (((((NIL))))))\r\n',
    b'* 1 FETCH (UID 1 BODYSTRUCTURE ("a" "b" (((("c" {3}\r\n\r\n)))\r\n',
    b'* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 5 BODY[HEADER.FIELDS (SUBJECT)] ((NIL)))\r\n',
    b'* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 5 INTERNALDATE NIL BODY[HEADER NIL)\r\n',
    b'* LIST () "/" "a/b/c"\r\n', b'* LIST () "." "Work.x"\r\n', b'* LIST () NIL "Work/x"\r\n',
    b'* LIST () "" "q"\r\n', b'* LIST () "//" "a//b"\r\n', b'* LIST () "o" "Work"\r\n',
    b'* LIST () 5 "a5b"\r\n', b'* LIST () "/" "&AOk"\r\n', b'* LIST () "/" "&-&&-&\xff"\r\n',
    b'* LIST () "/" "&2D3-&3gA-"\r\n', b'* LIST () "/" NIL\r\n', b'* LIST () "/" (a b)\r\n',
    b'* LIST () "/" 5\r\n', b'* LIST () "/" ""\r\n', b'* LIST NIL "/" "nil"\r\n',
    b'* LIST 5 "/" "five"\r\n', b'* LIST (5 (6) NIL) "/" "odd"\r\n', b'* LIST () (/) "odd"\r\n',
    b'* LIST () "/" {8}\r\nx\r\n* BYE\r\n', b'* LIST () "/" "\x00"\r\n',
    b'* LIST () "/" "inbox"\r\n', b'* LIST () "/" "InBox/sub"\r\n',
    b'* LIST (\\Noselect) "/" "INBOX"\r\n', b'* LIST (\\Noselect) "/" "Work"\r\n',
    b'* LIST (\\NonExistent \\Noselect) "/" "Work/Work/Work"\r\n',
    b'* LIST () "/" "%s"\r\n' % (b'a/' * 20_000 + b'b'),
    b'* LIST () "/" "%s"\r\n' % (b'n' * 30_000), b'* LIST () "/" "acl_users"\r\n',
    b'* LIST () "/" "manage_main"\r\n', b'* LIST () "/" "../.."\r\n',
    b''.join(b'* LIST () "/" "f%d"\r\n' % number for number in range(200)), b'+ go on\r\n',
    b'+\r\n', b'{3}\r\n', b'* {3}\r\n', b'*\r\n', b'* \r\n', b'\r\n', b'\n', b'\r', b'\x00\r\n',
    b'* OK {5}\r\nabcde\r\n', b'* OK {-1}\r\n', b'* OK {999999999999}\r\n', b'* OK {99}\r\n',
    b'* NO out of space\r\n', b'* BAD you\r\n', b'ZZZ1 OK for another\r\n', b'A OK\r\n',
    b'* OK\r\n', b'* ' + b'(' * 20_000 + b'\r\n', b'* LIST ' + b'(' * 20_000 + b'\r\n',
    b'* 1 FETCH ' + b'(' * 20_000 + b'\r\n', b'HTTP/1.1 400 Bad Request\r\n',
    b'* X' + b'y' * 500_000 + b'\r\n',
)


@dataclass(frozen=True, repr=False)
class Distortion:
    """answer, which -- the `which`-th answer of that name. kind, more -- what happens to it."""

    answer: str
    which: int
    kind: str
    more: object = None

    def __repr__(self):
        return f'Distortion({self.answer!r}, {self.which}, {self.kind!r}, {self.more!r:.300})'

    @property
    def may_lie(self):
        """Whether the answer may be a good one that says something else: mail that is said to
        be gone is gone then."""
        return self.kind in ('number', 'drop', 'put', 'flip', 'double') \
            and self.answer in ('LIST', 'EXAMINE', 'SEARCH')

    @property
    def may_forge(self):
        """Whether what is told of messages may be wrong and look right."""
        return self.answer in ('FLAGS', 'HEADERS')

    def distorted(self, raw):
        """The Say in place of that answer."""
        return getattr(self, '_' + self.kind)(raw) if raw else Say(raw)

    def _number(self, raw):
        place, number = self.more
        found = list(re.finditer(rb'(?<![\w.])\d+', raw))
        if not found:
            return Say(raw)
        match = found[place % len(found)]
        return Say(raw[:match.start()] + number + raw[match.end():])

    def _put(self, raw):
        place, line = self.more
        lines = raw.splitlines(keepends=True)
        lines.insert(place % (len(lines) + 1), line)
        return Say(b''.join(lines))

    def _drop(self, raw):
        lines = raw.splitlines(keepends=True)
        del lines[self.more % len(lines)]
        return Say(b''.join(lines))

    def _double(self, raw):
        lines = raw.splitlines(keepends=True)
        place = self.more % len(lines)
        return Say(b''.join(lines[:place] + [lines[place]] * 2 + lines[place + 1:]))

    def _turn(self, raw):
        lines = raw.splitlines(keepends=True)
        return Say(b''.join(lines[-2::-1] + lines[-1:]))

    def _refuse(self, raw):
        return Say(re.sub(rb'(\w+) OK done\r\n$', rb'\1 ' + self.more + b'\r\n', raw))

    def _refuse_bare(self, raw):
        tag = raw.splitlines()[-1].split(b' ')[0]
        return Say(tag + b' ' + self.more + b'\r\n')

    def _cut(self, raw):
        return Say(raw[:self.more % (len(raw) + 1)], close=True)

    def _silence(self, raw):
        return Say(raw[:self.more % len(raw)])

    def _drip(self, raw):
        place, drop = self.more
        return Say(raw[:place % (len(raw) + 1)], drop=drop)

    def _flood(self, raw):
        place, drop = self.more
        return Say(raw[:place % (len(raw) + 1)], drop=drop * 2000, pause=0.0)

    def _flip(self, raw):
        place, inserted, removed = self.more
        place %= len(raw) + 1
        return Say(raw[:place] + inserted + raw[place + removed:])

    def _literal(self, raw):
        return Say(re.sub(rb'\{\d+\}', b'{' + self.more + b'}', raw))

    def _delimiter(self, raw):
        return Say(raw.replace(b' "/" ', b' ' + self.more + b' '))


REFUSALS = (b'NO not now', b'BAD what?', b'BYE bye', b'OK', b'', b'PREAUTH',
            b'NO [UNAVAILABLE] later', b'NO \xff\x00', b'XX done')


DELIMITERS = (b'NIL', b'"."', b'"o"', b'""', b'5', b'"or"', b'()')


def distort_by(distortions):
    """What to give a MailServer as `distort` for one connection."""
    seen = Counter()

    def distort(name, raw):
        which = seen[name]
        seen[name] += 1
        say = Say(raw)
        for each in distortions:
            if (each.answer, each.which) == (name, which) and say.plain:
                say = each.distorted(say.begin)
        return say

    return distort


def distortions():
    """One distortion of one answer."""
    place = st.integers(0, 400)
    def kind(name, *parts):
        return st.tuples(st.just(name), *parts)

    def at_a_place(*texts):
        return st.tuples(place, st.sampled_from(texts))

    line = st.integers(0, len(LINES) - 1).map(LINES.__getitem__)
    kinds = st.one_of(
        kind('number', st.tuples(st.integers(0, 8), st.sampled_from(NUMBERS))),
        kind('put', st.tuples(st.integers(0, 6), line)),
        kind('drop', st.integers(0, 6)),
        kind('double', st.integers(0, 6)),
        kind('turn'),
        kind('refuse', st.sampled_from(REFUSALS)),
        kind('refuse_bare', st.sampled_from(REFUSALS)),
        kind('cut', place),
        kind('silence', place),
        kind('drip', at_a_place(b'x', b'\r\n', b'* OK\r\n', b'+ \r\n')),
        kind('flood', at_a_place(b'x', b'* OK\r\n', b'* 1 EXISTS\r\n')),
        kind('flip', st.tuples(place, st.binary(max_size=3), st.integers(0, 3))),
        kind('literal', st.sampled_from((*NUMBERS, b'999999999999', b'5+', b'10'))),
        kind('delimiter', st.sampled_from(DELIMITERS)))
    return st.builds(lambda answer, which, kind: Distortion(answer, which, *kind),
                     st.sampled_from(ANSWERS), st.integers(0, 2), kinds)
