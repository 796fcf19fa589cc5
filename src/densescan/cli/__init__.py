"""The command line: one file a command, each a frozen dataclass of its options with a method `run`."""

from densescan.cli.app import main

__all__ = ["main"]
