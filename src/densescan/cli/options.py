"""What several commands share: their form, defaults that depend on another option, devices, output folders."""

import contextlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import make_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro

from densescan.cli.console import show_error
from densescan.errors import InputError

Device = Literal["auto", "cpu", "cuda"]
Output = Annotated[Path, tyro.conf.arg(aliases=("-o",))]
Inputs = tyro.conf.Positional[tuple[Path, ...]]


class Command(ABC):
    """What a command derives from: a frozen dataclass whose fields are the options and whose docstring is the help."""

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Command]":
        """The command with defaults that suit the arguments, where one option decides on those of others."""
        return cls

    @abstractmethod
    def run(self) -> None:
        """Do what was asked.

        Raises: InputError: the user's mistake.
        """


C = TypeVar("C")
T = TypeVar("T")


def with_defaults(command: type[C], **defaults: Any) -> type[C]:
    """The same command with other defaults of some fields."""
    types = {name: field.type for name, field in command.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    changed = [(name, types[name], value) for name, value in defaults.items()]
    namespace = {"__doc__": command.__doc__, "__module__": command.__module__}
    return make_dataclass(command.__name__, changed, bases=(command,), frozen=True, namespace=namespace)


def parse(kind: type[T], prog: str, args: Sequence[str], **keywords: Any) -> T:
    """Read arguments by the fields of a dataclass; keywords as of `tyro.cli`.

    Raises: InputError: a field's class refused its value. SystemExit: the help was asked for (0), or the arguments
        were not understood and that was shown (2).
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(kind, prog=prog, args=args, **keywords)
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        if cause is not None:
            raise cause from None
        show_error(shown.getvalue())
        raise


def option_value(args: Sequence[str], option: str) -> str | None:
    """The last value given to an option, before the command line is parsed as a whole; None: not given."""
    value = None
    for arg, following in zip_longest(args, args[1:]):
        if arg == option:
            value = following
        elif arg.startswith(option + "="):
            value = arg.removeprefix(option + "=")
    return value


def choose_device(device: Device) -> str:
    """The device to compute on; auto: the GPU if there is one.

    Raises: InputError: a GPU is asked for, and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available: use --device cpu, or install torch with CUDA")
    return device


def check_folder(path: Path) -> None:
    """Refuse an output folder that cannot be made or written, before anything is computed for it.

    Raises: InputError: a file is in the way, or no permission.
    """
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InputError(f"cannot write to {path}: {nearest} is a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {path}: no permission in {nearest}; name another folder")


def make_folder(path: Path) -> None:
    """Make an output folder that `check_folder` found possible."""
    path.mkdir(parents=True, exist_ok=True)
