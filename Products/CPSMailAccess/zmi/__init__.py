"""The pages of the tool and of mailboxes in Zope's management interface."""
