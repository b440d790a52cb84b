"""Runs a module with patches: ``python -m tests.storm.patched I3,R zasync_client -C conf``.

Imports: violations.
"""

import runpy
import sys

from tests.storm import violations


if __name__ == '__main__':
    names, module = sys.argv[1:3]
    for name in names.split(','):
        violations.PATCHES[name]()
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name='__main__', alter_sys=True)
