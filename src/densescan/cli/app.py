"""From an argument list to an exit status: find the command, read its options, run it."""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from densescan.cli import (
    complete,
    data,
    distil,
    evaluate,
    info,
    prepare,
    recipes,
    results,
    sheet,
    train,
    weights,
)
from densescan.cli.console import PROGRAM, guarded, say
from densescan.cli.options import Command, parse
from densescan.errors import InputError

COMMANDS: dict[str, type[Command]] = {
    "complete": complete.Complete,
    "evaluate": evaluate.Evaluate,
    "results table": results.Table,
    "results paper": results.Paper,
    "results compare": results.Compare,
    "results merge": results.Merge,
    "results sheet": sheet.Sheet,
    "info": info.Info,
    "weights list": weights.List,
    "weights show": weights.Show,
    "weights download": weights.Download,
    "weights push": weights.Push,
    "weights convert": weights.Convert,
    "weights merge": weights.Merge,
    "data simulate": data.Simulate,
    "data prepare": prepare.Prepare,
    "recipes": recipes.List,
    "recipes show": recipes.Show,
    "recipes commands": recipes.Commands,
    "train teacher": train.Teacher,
    "train refiner": train.Refiner,
    "train diffusion-dpo": distil.DiffusionDpo,
    "train score-distillation": distil.ScoreDistillation,
    "train distillation-dpo": distil.DistillationDpo,
}

HELP = ("-h", "--help")

EXAMPLES = """\
Examples:
  densescan complete 000123.bin -o scene.ply
  densescan complete 000123.bin -o scene.ply --steps 4 --picture before_after.png
  densescan info 000123.bin
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args: args: without the program's name; None: those of this process.
    Returns: the exit status, see `guarded`; a wrong option gives 2 as well.
    """
    given = list(sys.argv[1:] if args is None else args)
    try:
        return guarded(lambda: _run(given))
    except SystemExit as done:  # the parser has shown its help or what it did not understand
        return done.code if isinstance(done.code, int) else 1


def _run(args: list[str]) -> None:
    if args == ["--version"]:
        say(f"{PROGRAM} {version(PROGRAM)}")
        return
    found = _find(args)
    if isinstance(found, str):
        say(found)
        return
    kind = found.kind.for_args(found.args)
    description = inspect.getdoc(kind) or ""
    parse(kind, f"{PROGRAM} {found.name}", found.args, description=description).run()


@dataclass(frozen=True)
class _Found:
    """A command and the arguments after its name."""

    name: str
    kind: type[Command]
    args: list[str]


def _find(args: list[str]) -> _Found | str:
    """The command that the arguments begin with, or the help on all commands or on a group of them.

    Raises: InputError: there is no such command.
    """
    for length in (2, 1):
        name = " ".join(args[:length])
        if name in COMMANDS:
            return _Found(name, COMMANDS[name], args[length:])
    if not args or args[0] in HELP:
        return _help("")
    is_group = any(name.startswith(args[0] + " ") for name in COMMANDS)
    if is_group and (len(args) == 1 or args[1] in HELP):
        return _help(args[0] + " ")
    unknown = " ".join(args[: 1 + is_group])
    raise InputError(f"unknown command `{unknown}`: known are {', '.join(COMMANDS)}")


def _help(group: str) -> str:
    summaries = {
        name: inspect.getdoc(kind) or "" for name, kind in COMMANDS.items() if name.startswith(group)
    }
    width = max(map(len, summaries))
    lines = [f"  {name:<{width}}  {text.splitlines()[0]}" for name, text in summaries.items()]
    commands = "\n".join(["Commands, each with --help and examples:", *lines])
    if group:
        return f"usage: {PROGRAM} {group}COMMAND ...\n\n{commands}"
    usage = f"usage: {PROGRAM} [--version] COMMAND ..."
    return f"{usage}\n\nTurns one sparse LiDAR scan into a dense scene.\n\n{commands}\n\n{EXAMPLES}"
