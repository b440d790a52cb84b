"""The plugin that makes a skipped test fail where servers must not be missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]

PASSES = 'def test_it(): pass'
SKIPS = 'import pytest\ndef test_it(): pytest.skip("no server here")'
MARKED = 'import pytest\n@pytest.mark.skip(reason="no server here")\ndef test_it(): pass'
MODULE = ('import pytest\npytest.skip("no server here", allow_module_level=True)\n'
          'def test_it(): pass')
EXPECTED = 'import pytest\n@pytest.mark.xfail\ndef test_it(): assert False'


def outcome(text, directory, variable):
    """Run pytest with the plugin on a file with this text: (exit code, what it printed)."""
    (directory / 'test_sample.py').write_text(text, 'utf-8')
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'tests.noskips', '-p', 'no:cacheprovider',
         '--rootdir', directory, '-rs', directory],
        cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'ZASYNC_NO_SKIPS': variable})
    return done.returncode, done.stdout


@pytest.mark.parametrize('text', [SKIPS, MARKED, MODULE], ids=['call', 'mark', 'module'])
def test_a_skip_fails_and_says_why_when_skips_are_forbidden(text, tmp_path):
    code, said = outcome(text, tmp_path, '1')
    assert code not in (0, 5)
    assert 'no server here' in said


@pytest.mark.parametrize('text', [SKIPS, MARKED], ids=['call', 'mark'])
def test_a_skip_is_one_otherwise(text, tmp_path):
    code, said = outcome(text, tmp_path, '')
    assert code == 0
    assert '1 skipped' in said


@pytest.mark.parametrize('text', [PASSES, EXPECTED], ids=['passes', 'xfail'])
def test_nothing_else_is_changed(text, tmp_path):
    assert outcome(text, tmp_path, '1')[0] == 0
