"""Tests of the worker: real processes on a real ZEO server."""
