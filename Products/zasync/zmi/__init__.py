"""The pages of the manager in Zope's management interface."""
