"""What surrounds the pages of a mailbox: Zope's own for managers, a plain one for owners.

Zope's header, and the style sheets it names, are for those with "View management screens" in
the root. The owner of a mailbox needs no such right to read mail, and would be asked for a
password by each style sheet. They get a page that needs nothing but itself.

Imports: Zope.
"""

from AccessControl import getSecurityManager
from Acquisition import aq_base
from Products.PageTemplates.PageTemplateFile import PageTemplateFile


VIEW_MANAGEMENT_SCREENS = 'View management screens'

_plain_header = PageTemplateFile('../www/plainheader', globals(), __name__='plainheader')


def frame(context, tab):
    """{header, tabs, footer} around a page of `context`, as markup.

    Called by our own code, not by a template: the parts are Zope's and ours, and hold
    nothing that came by mail.
    """
    root = context.getPhysicalRoot()
    if getSecurityManager().checkPermission(VIEW_MANAGEMENT_SCREENS, root):
        return {
            'header': context.manage_page_header(),
            'tabs': context.manage_tabs(management_view=tab),
            'footer': context.manage_page_footer(),
        }
    options = [
        {'label': option['label'], 'url': '%s/%s' % (context.absolute_url(), option['action']),
         'active': option['label'] == tab}
        for option in aq_base(context).manage_options
        if _is_allowed(context, option['action'])]
    return {
        'header': _plain_header.__of__(context)(options=options, title=context.getId()),
        'tabs': '',
        'footer': '</body></html>',
    }


def _is_allowed(context, action):
    """Whether this user may open that page of ours; Zope's own are for managers."""
    if action == 'manage_access':
        return False
    roles = getattr(context, action + '__roles__', ())
    return bool(getSecurityManager().getUser().allowed(context, roles))
