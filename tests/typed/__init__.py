"""Samples for type checkers, see tests/test_types.py: an add-on, and mistakes add-ons make."""
