"""Names of permissions, and the roles that have them until a site says otherwise.

Imports: nothing of ours.
"""

from AccessControl.Permission import addPermission


MakeAsynchronousApplicationCalls = 'Make Asynchronous Application Calls'
MakeAsynchronousSessionCalls = 'Make Asynchronous Session Calls'
AddAsynchronousCallManagers = 'Add Asynchronous Call Managers'
ViewManagementScreens = 'View management screens'

for _permission in (MakeAsynchronousApplicationCalls, MakeAsynchronousSessionCalls,
                    AddAsynchronousCallManagers):
    addPermission(_permission, ('Manager',))
