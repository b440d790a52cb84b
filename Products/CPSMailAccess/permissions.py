"""The permissions of the product and the roles that have them at first.

Imports: AccessControl.
"""

from AccessControl.Permission import addPermission


AddMailTools = 'Add Mail Tools'
AddMailBoxes = 'Add Mail Boxes'
ViewMailbox = 'View mailbox'
SynchronizeMailbox = 'Synchronize mailbox'
ChangeMailbox = 'Change mailbox settings'

addPermission(AddMailTools, ('Manager',))
addPermission(AddMailBoxes, ('Manager',))
addPermission(ViewMailbox, ('Manager', 'Owner'))
addPermission(SynchronizeMailbox, ('Manager', 'Owner'))
addPermission(ChangeMailbox, ('Manager', 'Owner'))
