"""The pages of the dispatcher in Zope's management interface."""
