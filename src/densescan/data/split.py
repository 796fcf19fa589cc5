"""The frames that are evaluated, each with its scan and its ground truth, whatever they come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from densescan.data.io import read_scan
from densescan.data.prepare import RECORD, Prepared, read_prepared
from densescan.data.scan import Scan
from densescan.data.sequence import Frame, Sequence
from densescan.data.tiles import TileMap, read_array, tile_path
from densescan.data.truth import FileTruth, MapTruth, Truth
from densescan.errors import InputError

SIMULATION = "options.json"
"""What `densescan data simulate` writes into a sequence's folder first; poses.txt comes last."""


class Case(NamedTuple):
    """One scan and what a completion of it should hold."""

    key: str
    """Sequence and frame, such as "08/000123"."""
    scan: Scan
    """Sensor frame [m]."""
    truth: Float32[np.ndarray, "M 3"]
    """Ground truth [m], sensor frame."""


class _Source(ABC):
    """A sequence of cases."""

    @abstractmethod
    def frames(self) -> tuple[str, ...]:
        """Names of its frames, in order."""

    @abstractmethod
    def case(self, key: str, frame: str) -> Case:
        """The case of a frame."""

    @abstractmethod
    def piece(self, key: str, frame: str) -> tuple[Scan, Truth]:
        """The scan of a frame, and its truth to be read where it is needed."""

    @abstractmethod
    def check(self) -> None:
        """InputError where it can be told without reading scans that a frame is missing."""


@dataclass(frozen=True)
class Split:
    """Cases in a fixed order, each read when it is asked for."""

    keys: list[str]
    """Of the cases: SEQUENCE/FRAME."""
    sequences: dict[str, _Source] = field(repr=False)
    """The sequences they come from, by name."""

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Case]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Case:
        """Case i.

        Raises: InputError: its files are missing, moved or damaged. IndexError.
        """
        key, source, frame = self._find(i)
        return source.case(key, frame)

    def piece(self, i: int) -> tuple[Scan, Truth]:
        """The scan of case i, and its truth to be read piece by piece: what `Case.truth` holds, where it is asked for.

        Raises: InputError: its files are missing, moved or damaged. IndexError.
        """
        key, source, frame = self._find(i)
        return source.piece(key, frame)

    def check(self) -> None:
        """Find what is missing before anything is computed, as far as it can be told without reading scans.

        Raises: InputError: scans that have moved, or ground truth that is not there.
        """
        for source in self.sequences.values():
            source.check()

    def _find(self, i: int) -> tuple[str, _Source, str]:
        key = self.keys[i]
        name, _, frame = key.rpartition("/")
        return key, self.sequences[name], frame


def open_split(
    folder: str | Path,
    sequences: tuple[str, ...] | None = None,
    every: int = 1,
    limit: int | None = None,
    margin: int = 0,
) -> Split:
    """The cases in a folder that `densescan data prepare` or `densescan data simulate` wrote.

    Args: folder: holds sequences/. sequences: names of those wanted, in order; None: all. every: one frame of so
        many of each sequence. limit: so many frames at most, evenly spaced over all that are left. margin: so many
        frames at either end of each sequence are left out, where its map lacks what no other frame has seen.
    Raises: InputError: no such folder or sequence, one that is not complete, every or limit below 1 or margin below 0,
        or no frame left.
    """
    if every < 1 or (limit is not None and limit < 1) or margin < 0:
        raise InputError(
            f"expected every and limit of at least 1 and margin of at least 0, got {every}, {limit} and {margin}"
        )
    root = Path(folder) / "sequences"
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    names = found if sequences is None else list(sequences)
    if not names:
        raise InputError(
            f"{folder} holds no sequences/: make them with `densescan data prepare` or `densescan data simulate`"
        )
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{folder} has no sequence {', '.join(missing)}: found {', '.join(found) or 'none'}")
    opened = {name: _open(root / name) for name in names}
    keys = [f"{name}/{frame}" for name in names for frame in _inner(opened[name].frames(), margin)[::every]]
    if not keys:
        raise InputError(f"{folder} has no sequence of more than {2 * margin} frames: use a smaller margin")
    if limit is not None and limit < len(keys):
        keys = [keys[round(i)] for i in np.linspace(0, len(keys) - 1, limit)]
    return Split(keys, opened)


def _inner(frames: tuple[str, ...], margin: int) -> tuple[str, ...]:
    return frames[margin : max(len(frames) - margin, 0)]


def _open(folder: Path) -> _Source:
    if (folder / RECORD).is_file():
        return _PreparedSequence(read_prepared(folder))
    if (folder / SIMULATION).is_file() and not (folder / "poses.txt").is_file():
        raise InputError(
            f"{folder} is simulated only in part: the same `densescan data simulate` again makes the rest"
        )
    if (folder / "truth").is_dir():
        return _SimulatedSequence(folder)
    raise InputError(
        f"{folder} is neither prepared to the end nor simulated: run `densescan data prepare` or `data simulate` again"
    )


@dataclass(frozen=True)
class _PreparedSequence(_Source):
    """Scans from where they lie, ground truth from the map."""

    prepared: Prepared

    def frames(self) -> tuple[str, ...]:
        return self.prepared.frames

    @cached_property
    def map(self) -> TileMap:
        return TileMap(self.prepared.map_folder)

    @cached_property
    def sequence(self) -> Sequence:
        source = self.prepared.source
        if not Path(source.root).is_dir():
            raise InputError(
                f"the scans of {self.prepared.folder} are no longer in {source.root}: move them back, or prepare the "
                "data again from where they are"
            )
        return source.open(self.prepared.skip_bad)

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {self.sequence.frame_name(i): i for i in range(len(self.sequence))}

    def check(self) -> None:
        tiles = (tile_path(self.prepared.map_folder, tile) for tile in self.map.tiles)
        if missing := next((path for path in tiles if not path.is_file()), None):
            raise InputError(f"{missing} is missing: remove {self.prepared.folder} and prepare it again")
        for frame in self.frames():
            self._number(f"{self.prepared.folder.name}/{frame}", frame)

    def piece(self, key: str, frame: str) -> tuple[Scan, Truth]:
        read = self._read(key, frame)
        return read.scan, MapTruth(key, self.map, read.T_world_lidar, read.scan.points)

    def _read(self, key: str, frame: str) -> Frame:
        return self.sequence[self._number(key, frame)]

    def _number(self, key: str, frame: str) -> int:
        if frame not in self.numbers:
            raise InputError(
                f"frame {key} is no longer in {self.prepared.source.root}: prepare the data again"
            )
        return self.numbers[frame]

    def case(self, key: str, frame: str) -> Case:
        read = self._read(key, frame)
        try:
            truth = self.map.crop(read.T_world_lidar, read.scan.points)
        except InputError as error:
            raise InputError(f"no ground truth for frame {key}: {error}") from error
        return Case(key, read.scan, truth.astype(np.float32))


@dataclass(frozen=True)
class _SimulatedSequence(_Source):
    """Scans and their exact ground truth, file beside file."""

    folder: Path

    def frames(self) -> tuple[str, ...]:
        frames = tuple(sorted(path.stem for path in (self.folder / "velodyne").glob("*.bin")))
        if not frames:
            raise InputError(f"{self.folder} holds no velodyne/*.bin: simulate it again")
        return frames

    def check(self) -> None:
        for frame in self.frames():
            if not (path := self._truth(frame)).is_file():
                raise InputError(f"{path} is missing: every scan needs its ground truth, simulate it again")

    def piece(self, key: str, frame: str) -> tuple[Scan, Truth]:
        return read_scan(self.folder / "velodyne" / f"{frame}.bin"), FileTruth(self._truth(frame))

    def _truth(self, frame: str) -> Path:
        return self.folder / "truth" / f"{frame}.npy"

    def case(self, key: str, frame: str) -> Case:
        scan = read_scan(self.folder / "velodyne" / f"{frame}.bin")
        path = self._truth(frame)
        truth = read_array(path)
        if truth.ndim != 2 or truth.shape[1] != 3 or truth.dtype != np.float32 or len(truth) == 0:
            raise InputError(
                f"cannot read {path}: expected points of shape (N, 3) in float32, got {truth.shape} in {truth.dtype}; "
                "simulate the sequence again"
            )
        return Case(key, scan, truth)
