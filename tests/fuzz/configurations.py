"""Made-up zasync.conf files: what may stand in one, put together anyhow, and good ones spoilt.

Imports: hypothesis, zasync_client's schema.
"""

from pathlib import Path

from hypothesis import strategies as st

from zasync_client.schema import schema


ROOT = Path(__file__).resolve().parents[2]

#: Good files.
GOOD = tuple((ROOT / name).read_bytes() for name in (
    'etc/zasync.conf', 'tests/client/sample_2006.conf'))

#: Modules that `rude_modules` makes: each spoils its import in a way of its own.
RUDE = {
    'zasync_fuzz_raises': 'raise RuntimeError("two\\nlines")\n',
    'zasync_fuzz_exits': 'raise SystemExit(3)\n',
    'zasync_fuzz_broken': 'def (:\n',
    'zasync_fuzz_lies': 'def __getattr__(name):\n    raise KeyError(name)\n',
}

NUMBERS = ('0', '1', '2', '-1', '0.5', '1e308', '-1e308', '1e-400', 'inf', '-inf', 'nan', '1_000',
           '0x10', '+1', '1e3', '1,000', '5 5', '\u0661\u0662', '\u00b2', '9' * 400, '9' * 5000,
           '2147483648', '99999999999', '10MB', '10 mb', '5kB', '5TB', '-5MB', '1e3KB', 'MB',
           '9' * 5000 + 'GB', '1.5GB', '1w', '10m')
TEXTS = ('', 'on', 'off', 'maybe', '/', '//', '/a', '/a//b/', 'a/b', '/\u00e4/\u2028', '.', '..',
         '/nowhere/at/all', '/dev/null', '$', '$$', '$A', '${A}', '$(HOME)', '$(NOWHERE)', '$(',
         '#', '%s%n', '<a>', '</plugin>', "'", '"', '\\', 'x' * 3000, '\x00', 'a\x00b', '\x1b[31m',
         '\r', '\ufeff', '\u202e', 'os.path', 'A.b')
HANDLERS = ('os.path.join', 'os.path.sep', 'os', '.', '..a', 'os..path',
            'no_such_module_at_all.run', 'os.path.no_such_function', 'zasync.plugins.zope_exec',
            'zasync.plugins.aggregatePlugins', 'Products.zasync.builtin.zope_call',
            'zasync_fuzz_raises.run', 'zasync_fuzz_exits.run', 'zasync_fuzz_broken.run',
            'zasync_fuzz_lies.run', 'builtins.ValueError', 'OSError')
PLUGINS = ('x', 'X', 'zope_exec', 'echo', 'schedule', 'aggregate', 'follow', 'protected_ldap',
           'a b', '/', '\u00e4', '-', '%', 'x' * 300, '')
PACKAGES = ('zasync_client', 'os', 'no_such_package', 'zasync_fuzz_raises', 'zasync_fuzz_exits',
            'zasync_fuzz_broken', 'Products', '.', '..', 'a b', '\x00')
INCLUDES = ('.', '..', '/', 'zasync.conf', './zasync.conf', 'other.conf', 'loop.conf',
            'latin.conf', 'no-such.conf', '\x00', '/dev/null', 'file:', 'file:///',
            'file://host/x', 'foo:bar', 'http:', 'http://127.0.0.1:1/x',
            'data:text/plain,threads%205', 'data:', 'data:,%00', 'package:', 'package:os',
            'package:os:x', 'package:no_such:x', 'package::x', 'package:zasync_client:schema.xml',
            'package:zasync_fuzz_exits:x', '#x', 'a#b', '$A', 'http://[', '//[', '~',
            'other.conf\x00')

TOP = tuple(sorted(key for key, _ in schema() if key and key != 'default-zpublisher-encoding'))
SECTIONS = tuple(sorted(name for name in schema().gettypenames()
                        if not schema().gettype(name).isabstract()))


def _keys_of(section):
    return tuple(sorted(key for key, _ in schema().gettype(section) if key)) or ('x',)


def value():
    """What may stand behind a key."""
    return st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(HANDLERS),
                     st.text(max_size=20).map(lambda text: text.replace('\n', ' ')))


def _line(key, *values):
    return st.tuples(key, st.one_of(value(), *values)).map(' '.join)


def _directive():
    names = st.sampled_from(('A', 'B', 'a', 'instance', '$A', '1', '', '\u00e4'))
    return st.one_of(
        st.tuples(st.just('%define'), names, st.sampled_from(TEXTS)).map(' '.join),
        st.sampled_from(PACKAGES).map('%import {}'.format),
        st.sampled_from(INCLUDES).map('%include {}'.format),
        st.sampled_from(('%', '%define', '%include', '%import', '%nothing x', '% define A b')))


def _section(inner, kind, name):
    begin = f'<{kind} {name}>' if name else f'<{kind}>'
    return st.one_of(
        inner.map(lambda lines: '\n'.join([begin, *lines, f'</{kind}>'])),
        st.just(begin), st.just(f'</{kind}>'), st.just(begin.replace('>', '/>')))


def _plugin():
    inner = st.lists(st.one_of(
        st.sampled_from(HANDLERS).map('handler {}'.format),
        _line(st.sampled_from(_keys_of('plugin')))), max_size=4)
    return st.sampled_from(PLUGINS).flatmap(lambda name: _section(inner, 'plugin', name))


def _any_section(depth=2):
    def of(kind):
        line = _line(st.sampled_from(_keys_of(kind)))
        inner = st.lists(line if not depth else st.one_of(line, _any_section(depth - 1)),
                         max_size=3)
        return st.sampled_from(('', 'x', 'main')).flatmap(
            lambda name: _section(inner, kind, name))
    return st.sampled_from(SECTIONS).flatmap(of)


def written():
    """Texts put together of what a zasync.conf may hold."""
    piece = st.one_of(_line(st.sampled_from(TOP)), _directive(), _plugin(), _any_section(),
                      st.text(max_size=30))
    return st.tuples(
        st.sampled_from(('instancehome @PLACE@', '\ufeffinstancehome @PLACE@',
                         'instancehome /nowhere', '')),
        st.lists(piece, max_size=6), st.sampled_from(('\n', '\r\n', '\r', '\n\n'))
    ).map(lambda made: made[2].join([made[0], *made[1], '']).encode('utf-8', 'surrogatepass'))


@st.composite
def spoilt(draw):
    """A good file in which something was changed."""
    lines = draw(st.sampled_from(GOOD)).replace(b'@ZOPE@', b'@PLACE@').replace(
        b'@INSTANCE@', b'@PLACE@').replace(b'/srv/zope', b'@PLACE@').split(b'\n')
    full = [number for number, line in enumerate(lines)
            if line.strip() and not line.startswith(b'# ')]
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.sampled_from(full)) % len(lines)
        line = lines[number]
        how = draw(st.sampled_from(('drop', 'double', 'value', 'uncomment', 'bytes', 'cut',
                                     'swap')))
        if how == 'drop':
            lines[number] = b''
        elif how == 'double':
            lines.insert(number, line)
        elif how == 'value':
            lines[number] = line.split(b' ')[0] + b' ' + draw(value()).encode(
                'utf-8', 'surrogatepass')
        elif how == 'uncomment':
            lines[number] = line.removeprefix(b'#')
        elif how == 'bytes':
            place = draw(st.integers(0, len(line)))
            lines[number] = line[:place] + draw(st.binary(min_size=1, max_size=4)) + line[place:]
        elif how == 'cut':
            del lines[max(number, 1):]
            full = list(range(len(lines)))
        else:
            other = draw(st.sampled_from(full)) % len(lines)
            lines[number], lines[other] = lines[other], line
    return b'\n'.join(lines)
