"""What tests of recipes share: a command line as the program itself reads it."""

from collections.abc import Callable, Sequence

import pytest

from densescan.cli.app import COMMANDS
from densescan.cli.options import Command, parse


def read_command(line: Sequence[str]) -> Command:
    """The command, with its options, that a line beginning with the program's name stands for."""
    program, *args = line
    assert program == "densescan"
    name = max((name for name in COMMANDS if args[: len(name.split())] == name.split()), key=len)
    rest = args[len(name.split()) :]
    return parse(COMMANDS[name].for_args(rest), name, rest)


@pytest.fixture(scope="session")
def read() -> Callable[[Sequence[str]], Command]:
    return read_command
