"""Where training crops come from: the frames of a folder, or whatever else chooses and reads frames."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densescan.data.scan import Scan
from densescan.data.split import open_split
from densescan.data.truth import Truth


class Choice(NamedTuple):
    """Which frame a crop is cut from."""

    slot: int
    """Where its group is kept in memory; another group of the same slot takes its place."""
    group: int
    """What is read together."""
    place: int
    """The frame in its group."""


class FrameSource(ABC):
    """Frames that training crops are cut from. Goes to other processes as it is: it holds no open file."""

    name: str
    """For messages and model cards."""

    @abstractmethod
    def choose(self, i: int, seed: int, rng: np.random.Generator) -> Choice:
        """The frame for crop i of the crops of a seed; depends on (seed, i) and what it draws from rng alone."""

    @abstractmethod
    def read(self, choice: Choice, seed: int) -> list[tuple[Scan, Truth]]:
        """All frames of the group: scans and their ground truth, sensor frame [m].

        Raises: InputError: a file is missing, moved or damaged.
        """


class FolderFrames(FrameSource):
    """The frames that `densescan data prepare` or `densescan data simulate` put into a folder, each as likely.

    Points that move stay in the scans, as they do when a scan is completed; they are no part of the truth.
    """

    def __init__(self, folder: str | Path, sequences: tuple[str, ...] = ()) -> None:
        """Args: folder: holds sequences/. sequences: names of those wanted; none: all.

        Raises: InputError: no such folder or sequence, one that is not complete, scans that have moved, or truth that
            is missing.
        """
        self.name = str(folder)
        self._split = open_split(folder, sequences or None)
        self._split.check()

    def __len__(self) -> int:
        return len(self._split)

    def choose(self, i: int, seed: int, rng: np.random.Generator) -> Choice:
        frame = int(rng.integers(len(self._split)))
        return Choice(frame, frame, 0)

    def read(self, choice: Choice, seed: int) -> list[tuple[Scan, Truth]]:
        return [self._split.piece(choice.group)]
