"""Sphinx settings: reStructuredText and nothing beyond what Sphinx brings."""

project = 'zasync'
author = 'the zasync contributors'
copyright = '2026, the zasync contributors'
version = '2.0'
release = '2.0.0'

root_doc = 'index'
exclude_patterns = ['_build']
extensions = []

html_theme = 'alabaster'
html_theme_options = {'description': 'Background calls for Zope', 'fixed_sidebar': True}
