"""Tests with input that Hypothesis makes up; see tests/profiles.py."""
