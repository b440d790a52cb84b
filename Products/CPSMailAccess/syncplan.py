"""What to do to make the local side like the server. Pure: snapshots in, operations out.

The rules, each with a reason:

- A folder is matched by its server name and nothing else.
- UIDs mean something only in the account and under the UIDVALIDITY they were seen with; under
  another one the folder's messages are dropped and fetched anew, and no other folder is touched.
  Folders of two accounts may have the same UIDVALIDITY.
- Only unknown UIDs are fetched, those that were refused before apart from the others: one that
  can't be read keeps others away. Flags of known ones are compared.
- Something is deleted only when a *complete* listing does not have it. No listing, half a
  listing or an error deletes nothing.
- A light run looks at INBOX; only a full run creates the other folders and removes any.
- A folder that is a name only has no messages: its server deleted it, and kept the name for what
  is below it (RFC 3501 6.3.4). Dovecot 2.3 lists such a name as if it could be opened: so what has
  folders below it is a name only too when the server says, asked to open it, that there is no such
  folder. INBOX is always a folder.

Imports: dataclasses, re, unicodedata, values.
"""

import re
import unicodedata
from dataclasses import dataclass

from .values import RemoteFolder


#: Messages fetched, and flags compared, in one batch and one commit. Large enough to make
#: round trips cheap, small enough that a lost connection loses little and a commit is short.
BATCH_SIZE = 200

INBOX = 'INBOX'

#: Ids that begin so are Zope's.
RESERVED_PREFIXES = ('manage', 'aq_', 'wl_')

#: What a request has of its server and of its address, as HTTP_HOST and URL1.
_OF_REQUEST = re.compile('[A-Z0-9]+(_[A-Z0-9]+)+|(URL|BASE)(PATH)?[0-9]*')

#: More of a request, what Zope's pages look up in what they show, methods of WebDAV, and what Zope
#: or we acquire where it is.
_RESERVED_IDS = frozenset('''
    BODY BODYFILE PARENTS PUBLISHED REQUEST RESPONSE SESSION
    TraversalRequestNameStack VirtualRootName VirtualRootPhysicalPath
    ZopeTime ZopeVersion action authuser breadcrumb_length charset css_urls
    filtered_meta_types getBookmarkableURLs js_urls label last major management_view method name
    options s_index s_item target url zmi_dialog zmi_show_add_dialog
    COPY DELETE GET HEAD LOCK MKCOL MOVE OPTIONS POST PROPFIND PROPPATCH PUT TRACE UNLOCK
    Control_Panel MailHost acl_users asynchronous_call_dispatcher asynchronous_call_manager
    browser_id_manager caching_policy_manager error_log session_data_manager
    standard_error_message standard_html_footer standard_html_header temp_folder
    translation_service virtual_hosting
'''.split())

#: How to learn the flags of known messages.
FLAGS_NONE, FLAGS_SINCE, FLAGS_ALL = 'none', 'since', 'all'


@dataclass(frozen=True)
class FolderPlan:
    """create -- RemoteFolders to make, parents first. keep -- those there are, likewise.
    scan -- RemoteFolders to look into. remove -- server names to drop, children first.
    empty -- server names of those kept that are names only. above -- server names of what has
    others below it, and may be a name only though it is listed as a folder."""

    create: tuple = ()
    keep: tuple = ()
    scan: tuple = ()
    remove: tuple = ()
    empty: tuple = ()
    above: frozenset = frozenset()


@dataclass(frozen=True)
class MessagePlan:
    """rebuild -- drop what is stored first: its UIDs mean nothing any more.
    batches -- tuples of UIDs to fetch, newest first. vanished -- UIDs to drop.
    flags -- how to learn the flags of `known`. complete -- whether the listing was.
    again -- UIDs to fetch after the batches, for the server refused to read them before."""

    rebuild: bool = False
    batches: tuple = ()
    known: frozenset = frozenset()
    vanished: frozenset = frozenset()
    flags: str = FLAGS_NONE
    complete: bool = True
    again: tuple = ()

    @property
    def to_fetch(self):
        return sum(len(batch) for batch in self.batches) + len(self.again)


def plan_folders(listed, local_names, light):
    """The FolderPlan for `listed` RemoteFolders (a complete LIST) and the local names.

    light -- 1: only INBOX is created and looked into, nothing is removed.
    """
    wanted = {}
    for folder in sorted(listed, key=lambda folder: (len(folder.path), folder.server_name)):
        for parent in _implied_parents(folder):
            wanted.setdefault(parent.server_name, parent)
        wanted[folder.server_name] = folder
    # INBOX always exists (RFC 3501 5.1), listed or not, or only as what is above others.
    wanted[INBOX] = RemoteFolder(INBOX, (INBOX,))
    if light:
        wanted = {INBOX: wanted[INBOX]}
    local_names = set(local_names)
    ordered = sorted(wanted.values(), key=lambda folder: (len(folder.path), folder.path))
    create = tuple(folder for folder in ordered if folder.server_name not in local_names)
    keep = tuple(folder for folder in ordered if folder.server_name in local_names)
    # INBOX first: it is what people wait for.
    scan = sorted((folder for folder in ordered if folder.selectable),
                  key=lambda folder: (folder.server_name != INBOX, folder.path))
    gone = () if light or not listed else local_names - set(wanted)
    # A child's name is its parent's and more, so longest first is children first.
    remove = tuple(sorted(gone, key=lambda name: (-len(name), name)))
    empty = tuple(folder.server_name for folder in keep if not folder.selectable)
    above = frozenset(name for folder in ordered for name in folder.parents) - {INBOX}
    return FolderPlan(create, keep, tuple(scan), remove, empty, above)


def _implied_parents(folder):
    """Parents that a server may leave out of its list: names only, nothing to open."""
    for depth, name in enumerate(folder.parents):
        yield RemoteFolder(name, folder.path[:depth + 1], folder.parents[:depth], False)


def is_unchanged(stored, count, remote):
    """Whether a folder can be skipped: nothing came, went or changed since `stored`, and of its
    messages there are `count`: a server may have told that one went which did not.

    Sound only with modification sequences: new mail moves UIDNEXT, a deletion changes the
    number of messages (or both, when something came too), a flag moves HIGHESTMODSEQ.
    """
    return (stored is not None and stored == remote and count == remote.exists
            and None not in (remote.modseq, remote.uidnext, remote.uidvalidity))


def plan_messages(local, remote, batch_size=BATCH_SIZE):
    """The MessagePlan that makes the `local` Snapshot like the `remote` one."""
    renumbered = is_renumbered(local.state, remote.state)
    rebuild = bool(local.uids) and renumbered
    stored = frozenset() if rebuild else local.uids
    known = stored & remote.uids
    vanished = stored - remote.uids if remote.complete else frozenset()
    again = () if renumbered else tuple(
        uid for uid in local.refused if uid in remote.uids and uid not in stored)
    batches = split(sorted(remote.uids - stored - set(again), reverse=True), batch_size)
    flags = _how_flags(local.state, remote.state) if known else FLAGS_NONE
    return MessagePlan(rebuild, batches, known, vanished, flags, remote.complete, again)


def is_renumbered(stored, remote):
    """Whether UIDs seen with the FolderState `stored` mean nothing with `remote`."""
    return stored.uidvalidity != remote.uidvalidity or is_of_another(stored, remote)


def is_of_another(stored, remote):
    """Whether the two are folders of different accounts."""
    return stored.whose is not None and stored.whose != remote.whose


def _how_flags(stored, remote):
    if stored.modseq is None or remote.modseq is None:
        return FLAGS_ALL
    if remote.modseq < stored.modseq:
        # The server's sequence went backwards (a restored or re-indexed mailbox): it says
        # nothing about our copy.
        return FLAGS_ALL
    return FLAGS_NONE if remote.modseq == stored.modseq else FLAGS_SINCE


def is_complete(listed, exists, expunged):
    """Whether a listing of `listed` UIDs is all: the server announced up to `exists` messages
    and told of `expunged` deletions. More than announced is mail that just came."""
    return listed >= exists - expunged


def changed_flags(local, remote):
    """{uid: flags} of what differs; both sides map UIDs to frozensets."""
    return {uid: flags for uid, flags in remote.items()
            if uid in local and local[uid] != flags}


def split(uids, size=BATCH_SIZE):
    """The UIDs in tuples of at most `size`, in the order given."""
    uids = tuple(uids)
    return tuple(uids[start:start + size] for start in range(0, len(uids), size))


def is_reserved(id):
    """Whether Zope or its pages look for something of that name in any object."""
    return (id.startswith(RESERVED_PREFIXES) or id in _RESERVED_IDS
            or _OF_REQUEST.fullmatch(id) is not None)


def folder_id(name, is_taken):
    """A Zope id for a folder shown as `name`: safe in a URL, not reserved, and not taken.

    is_taken -- function of an id; true also for ids that would hide a method.
    """
    plain = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode('ascii')
    base = re.sub(r'[^A-Za-z0-9_.-]+', '', plain).strip('._-')[:80].rstrip('._-') or 'folder'
    if base.startswith(RESERVED_PREFIXES):
        base = 'folder-' + base
    candidate, number = base, 1
    while is_reserved(candidate) or is_taken(candidate):
        number += 1
        candidate = '%s-%d' % (base, number)
    return candidate
