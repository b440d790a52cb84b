"""Values as text for pages: times, sizes, flags. Pure; the templates escape.

Imports: the standard library.
"""

import datetime


#: What the well-known flags are called in lists (RFC 3501 2.3.2); others show as they are.
FLAG_NAMES = {
    '\\answered': 'answered',
    '\\flagged': 'flagged',
    '\\deleted': 'deleted',
    '\\draft': 'draft',
    '$forwarded': 'forwarded',
}

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def moment(seconds):
    """POSIX seconds as '2005-07-11 14:05 UTC'; '' for None and for what no calendar has."""
    if seconds is None:
        return ''
    try:
        when = _EPOCH + datetime.timedelta(seconds=seconds)
    except (OverflowError, ValueError, TypeError):
        return ''
    return when.strftime('%Y-%m-%d %H:%M UTC')


def size(count):
    """A number of bytes for people: 512 B, 3.4 kB, 12 MB."""
    for unit, limit in (('B', 1e3), ('kB', 1e6), ('MB', 1e9)):
        if count < limit:
            number = count / limit * 1e3
            return '%.0f %s' % (number, unit) if number >= 10 or unit == 'B' \
                else '%.1f %s' % (number, unit)
    return '%.1f GB' % (count / 1e9)


def flag_names(flags):
    """Sorted names of the flags worth showing; \\Seen shows as normal weight instead."""
    return sorted(FLAG_NAMES.get(flag.lower(), flag[:40])
                  for flag in flags if flag.lower() != '\\seen')


def shortened(text, most=120):
    """`text`, or its first characters and an ellipsis: for a line of a list."""
    return text if len(text) <= most else text[:most - 1].rstrip() + '…'


def name_of(address):
    """What a list shows of 'Bob <bob@example.com>': the name, else the address."""
    name, _, rest = address.partition('<')
    name = name.strip().strip('"').strip()
    return name or rest.rstrip('> ') or address


def percent(done, total):
    """A whole number from 0 to 100."""
    if total <= 0:
        return 0
    return max(0, min(100, int(100 * done / total)))


def plural(number, noun):
    """'1 message', '2 messages'."""
    return '%d %s%s' % (number, noun, '' if number == 1 else 's')


def enumerated(names, most=5, length=40):
    """'Old, Work and 7 more': so many names, and so many characters of each."""
    shown = ', '.join(shortened(name, length) for name in names[:most])
    return shown if len(names) <= most else '%s and %d more' % (shown, len(names) - most)


def summary(counts, skipped=(), left=0):
    """What a run did, and what it could not do, each in one sentence.

    skipped -- names of folders that could not be opened.
    left -- messages that the server refused to read.
    """
    sentences = ['%s looked into, %s fetched, %d deleted, %s of flags.' % (
        plural(counts['folders'], 'folder'), plural(counts['fetched'], 'message'),
        counts['deleted'], plural(counts['flags'], 'change'))]
    if skipped:
        sentences.append('%s skipped: %s.' % (plural(len(skipped), 'folder'),
                                              enumerated(skipped)))
    if left:
        sentences.append('The mail server refused to give %s, left for next time.'
                         % plural(left, 'message'))
    return ' '.join(sentences)
