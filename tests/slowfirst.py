"""A pytest plugin: files with slow tests come first, or one process is left with them at the end.

Loaded by `-p tests.slowfirst` in pyproject.toml. `make test` hands out whole files.
"""


def pytest_collection_modifyitems(items):
    """Files with a test marked slow first, most of them first; else in the order found."""
    slow = {}
    for item in items:
        if item.get_closest_marker('slow') is not None:
            slow[item.path] = slow.get(item.path, 0) + 1
    items.sort(key=lambda item: -slow.get(item.path, 0))
