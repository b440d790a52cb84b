"""Makes docs/configuration.rst: configuration.in, with the directives of the schema put in.

    python docs/configuration.py          writes it

A line of configuration.in that begins with @ stands for what the schemas say:

    @key NAME       an entry for a top-level directive of ours: type, default, description
    @keys SECTION   the same for each directive of a section of ours
    @zope NAME      type and default of a directive of Zope's; its text follows, indented
    @others         the names of Zope's directives that have no entry

Each directive of ours has to come in somewhere.

Imports: zasync_client.datatypes.
"""

import textwrap
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

from zasync_client import datatypes


HERE = Path(__file__).resolve().parent
OURS = files('zasync_client') / 'schema.xml'
SECTIONS = files('zasync_client') / 'component.xml'
ZOPES = files('Zope2.Startup') / 'wsgischema.xml'

#: What ZConfig's and Zope's types are called here; ours are told by their docstrings.
TYPES = {None: 'text', 'boolean': '``on`` or ``off``', 'dotted-name': 'dotted name',
         'existing-directory': 'directory that is there',
         '.security_policy_implementation': '``C`` or ``PYTHON``'}


def page():
    """The text of docs/configuration.rst."""
    ours, zopes = Entries(OURS, SECTIONS), Entries(ZOPES)
    lines = ['.. Made by docs/configuration.py from configuration.in and the schemas.', '']
    for line in (HERE / 'configuration.in').read_text('utf-8').splitlines():
        command, _, name = line.partition(' ')
        if command == '@key':
            lines += [*ours.entry(name), '']
        elif command == '@keys':
            for key in ours.of_section(name):
                lines += [*ours.entry(key), '']
        elif command == '@zope':
            lines += zopes.head(name)
        elif command == '@others':
            names = ', '.join(f'``{name}``' for name in zopes.left(sections=False))
            lines += textwrap.wrap(names, 98, break_on_hyphens=False)
        else:
            lines.append(line)
    left = ours.left()
    if left:
        raise SystemExit(f'configuration.in has no place for {", ".join(left)}')
    return '\n'.join(lines).rstrip() + '\n'


class Entries:
    """The directives of a schema; those of sections are called SECTION.KEY."""

    def __init__(self, *paths):
        schemas = [ElementTree.fromstring(path.read_text('utf-8')) for path in paths]
        self._keys = {key.get('name'): key for key in _keys(schemas[0])}
        self._sections = {}
        for section in [each for schema in schemas for each in schema.findall('sectiontype')]:
            name = section.get('name').removeprefix('historic.')
            keys = {f"{name}.{key.get('name')}": key for key in _keys(section)
                    if key.find('description') is not None}
            self._sections[name] = list(keys)
            self._keys.update(keys)
        self._shown = set()

    def of_section(self, name):
        """Names of the directives of a section."""
        return self._sections[name]

    def head(self, name):
        """Lines: name, type, default, and an empty one."""
        self._shown.add(name)
        key = self._keys[name]
        kind = key.get('datatype')
        kind = TYPES[kind] if kind in TYPES else getattr(datatypes, kind[1:]).__doc__
        if key.tag == 'multikey':
            kind += '; may be repeated'
        default = key.get('default')
        if key.get('required') == 'yes':
            default = 'none, required'
        elif default is None:
            default = 'none'
        else:
            default = f'``{default}``' if default else 'empty'
        return [f'.. confval:: {name}', f'   :type: {kind}', f'   :default: {default}', '']

    def entry(self, name):
        """All lines on one directive."""
        description = self._keys[name].find('description').text
        text = ' '.join(description.split())
        return [*self.head(name), *textwrap.wrap(
            text, 99, initial_indent='   ', subsequent_indent='   ', break_on_hyphens=False,
            break_long_words=False)]

    def left(self, sections=True):
        """Names of the directives without an entry; sections -- with those of sections."""
        return sorted(name for name in self._keys
                      if name not in self._shown and (sections or '.' not in name))


def _keys(parent):
    return [key for key in parent if key.tag in ('key', 'multikey')
            and key.get('name') not in ('+', '*')]


if __name__ == '__main__':
    (HERE / 'configuration.rst').write_text(page(), 'utf-8')
