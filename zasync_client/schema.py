"""The schema of zasync.conf: ours, which extends Zope's, with what only files of 2006 say.

Imports: nothing of ours.
"""

import functools
import os
import xml.sax

from ZConfig.info import SectionType
from ZConfig.loader import SchemaLoader
from Zope2.Startup.options import ConditionalSchemaParser


SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'schema.xml')

#: A type of ours with this prefix holds what the type of Zope without it once had: what that
#: one lacks is added to it.
HISTORIC = 'historic.'


@functools.cache
def schema():
    """The schema, read once."""
    loader = SchemaLoader()
    with loader.openResource(loader.normalizeURL(SCHEMA)) as resource:
        parser = _Parser(loader, resource.url)
        xml.sax.parse(resource.file, parser)
    found = parser._schema
    for name in [name for name in found.gettypenames() if name.startswith(HISTORIC)]:
        _complete(found, name.removeprefix(HISTORIC), found.gettype(name))
    for kind in [found, *map(found.gettype, found.gettypenames())]:
        for _, info in () if kind.isabstract() else kind:
            if not info.issection():
                info.datatype = _refusing(info.datatype)
    return found


def _refusing(datatype):
    """The datatype, which refuses with a ValueError and with no other exception."""
    def convert(value):
        try:
            return datatype(value)
        except ValueError:
            raise
        except Exception as reason:  # one of Zope's fails when it says what it would take
            raise ValueError(f'can not be {value!r}') from reason

    return convert


class _Parser(ConditionalSchemaParser):
    """Reads the schema we extend with the same rules as our own, conditional imports included."""

    def extendSchema(self, src):
        parser = _Parser(self._loader, src, self)
        with self._loader.openResource(src) as resource:
            xml.sax.parse(resource.file, parser)


def _complete(schema, name, historic):
    """Give the type of that name the keys of `historic` it lacks; make it if there is none."""
    if name not in schema.gettypenames():
        made = SectionType(name, historic.keytype, historic.valuetype, historic.datatype,
                           schema.registry, schema._types)
        schema.addtype(made)
        for abstract in map(schema.gettype, schema.gettypenames()):
            if abstract.isabstract() and abstract.hassubtype(historic.name):
                abstract.addsubtype(made)
    kind = schema.gettype(name)
    there = {key for key, _ in kind}
    for key, info in historic:
        if key not in there:
            kind._add_child(key, info)
