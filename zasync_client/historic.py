"""What a zasync.conf of 2004 to 2006 says that is said otherwise today.

Such a file is read; for each line of it whose object is gone there is a sentence that says
what to write instead. Pure.

Imports: nothing of ours.
"""

#: Handlers of the time → the built-in plugins that do their work.
HANDLERS = {
    f'{package}.{function}': builtin
    for package in ('zasync.plugins', 'Products.zasync.plugins')
    for function, builtin in (
        ('zope_exec', 'zope_exec'), ('schedule', 'schedule'), ('aggregatePlugins', 'aggregate'),
        ('query_unprotected_ldap', 'unprotected_ldap'),
        ('query_protected_ldap', 'protected_ldap'))
}

_VERSIONS = ('the ZODB has no versions any more, so {key} has no effect: leave it out; pool-size '
             'and cache-size are for all connections')

#: (type of the section or None, key) → a sentence.
_KEYS = {
    ('zodb_db', 'version-pool-size'): _VERSIONS,
    ('zodb_db', 'version-cache-size'): _VERSIONS,
}

#: Type of a section → a sentence.
_SECTIONS = {
    'http-handler': '<http-handler> is called <http-logger> now: write that',
}

#: The same for those that work on Windows only.
_ON_WINDOWS = {
    'win32-eventlog': 'there is no Windows event log on this system, so <win32-eventlog> has no '
                      'effect: write <syslog> or <logfile>',
}

_SKIP_AUTHENTICATION = (
    'skip-authentication-checking on has no effect in a worker: calls run as the users who put '
    'them, and what those may not do fails. With it Zope would refuse all that is protected, even '
    'to a Manager. Write skip-authentication-checking off')

_SKIP_OWNERSHIP = (
    'skip-ownership-checking on weakens security: scripts and templates of people with few '
    'rights run with all rights of whoever calls them, in this worker as in a Zope that has it. '
    'Write skip-ownership-checking off')

_SITE_ZCML = ('nothing reads ZOPE3_SITE_ZCML any more: leave it out; Zope loads etc/site.zcml of '
              'the instancehome, or its own')


def of_key(section_type, key, value):
    """The sentence on that line, or None; the values are texts, as they were written."""
    found = _KEYS.get((section_type, key))
    if found is not None:
        return found.format(key=key)
    if section_type == 'environment' and key.upper() == 'ZOPE3_SITE_ZCML':
        return _SITE_ZCML
    if section_type is None and value.strip().lower() in ('on', 'yes', 'true'):
        return {'skip-authentication-checking': _SKIP_AUTHENTICATION,
                'skip-ownership-checking': _SKIP_OWNERSHIP}.get(key)
    return None


def of_section(section_type, platform):
    """The sentence on a section of that type, or None. platform -- see sys.platform."""
    if platform != 'win32' and section_type in _ON_WINDOWS:
        return _ON_WINDOWS[section_type]
    return _SECTIONS.get(section_type)


def of_handler(dotted, builtin):
    """The sentence on a handler of the time."""
    return (f'{dotted} is the built-in plugin {builtin} now: leave the line handler out, and the '
            'whole section if it says nothing else but a description')
