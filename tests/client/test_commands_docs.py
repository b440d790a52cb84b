"""docs/operations.rst and README.rst tell of every command, and of each option."""

import argparse
import re
from pathlib import Path

from zasync_client.cli import COMMANDS


ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / 'docs/operations.rst').read_text('utf-8')
README = (ROOT / 'README.rst').read_text('utf-8')


def sections():
    """{command: its heading and what is said below}; '' is what is said of all."""
    page = OPERATIONS.split('\nCommands\n--------\n')[1].split('\nThe PID file\n---')[0]
    of_all, *others = re.split(r'^(\w.*)\n~+\n', page, flags=re.M)
    found = {'': of_all}
    for heading, text in zip(others[::2], others[1::2], strict=True):
        for name in re.findall(r'(?:^|, )(\w+)', heading):
            found[name] = f'{heading}\n{text}'
    return found


def options(command):
    """Those of one command that --help tells too."""
    return [name for names, settings in command.arguments for name in names
            if name.startswith('-') and settings.get('help') != argparse.SUPPRESS]


def test_every_command_has_a_section_and_is_named_in_the_readme():
    names = {command.name for command in COMMANDS}
    assert set(sections()) - {''} == names
    assert {name for name in names if f'``{name}``' not in README} == set()


def test_every_option_is_told():
    told = sections()
    of_all = {'-C', '--json', '--help', '--version'}
    assert {name for name in of_all if name not in told['']} == set()
    assert [(command.name, name) for command in COMMANDS for name in options(command)
            if name not in of_all and name not in told[command.name]] == []
