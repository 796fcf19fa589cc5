"""The record of an evaluation: a JSON lines file with a header and one row a frame, written as the frames are done."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from densescan.errors import InputError
from densescan.files import atomic_write

KIND, FORMAT = "densescan evaluation", 1


@dataclass(frozen=True)
class Header:
    """What was evaluated and how. A run goes on only under the same header, but for the environment."""

    method: str
    """Its name in tables."""
    options: dict[str, Any]
    """All that the scenes depend on besides scan and seed."""
    split: dict[str, Any]
    """See `describe_split`."""
    seed: int
    metrics: tuple[str, ...]
    """Names of the measures."""
    environment: dict[str, Any]
    """Where the run began: versions, commit, processor."""


@dataclass(frozen=True)
class Row:
    """One frame: its scores, or why there are none."""

    key: str
    """SEQUENCE/FRAME."""
    method: str
    seed: int
    """Of this frame's scene."""
    commit: str | None = None
    """Of the code that made it."""
    hardware: str = ""
    """What the scene was computed on."""
    versions: str = ""
    points: int = 0
    """Of the scene."""
    truth_points: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall clock of each stage and in total, reading excluded; empty for scenes that were read."""
    scores: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    """Why the frame failed."""


@dataclass(frozen=True)
class Run:
    """A record as read."""

    path: Path
    header: Header
    rows: list[Row]

    @property
    def keys(self) -> list[str]:
        """Of all frames, in order."""
        return [row.key for row in self.rows]

    @property
    def failed(self) -> list[str]:
        """Keys of the frames that have no scores."""
        return [row.key for row in self.rows if row.error is not None]

    def has(self, figure: str) -> bool:
        """Whether the figure was measured."""
        return any(figure in row.scores for row in self.rows)

    def values(self, figure: str) -> Float64[np.ndarray, " F"]:
        """One figure of every frame.

        Raises: InputError: a frame failed, so that there is no honest mean; or the figure was not measured.
        """
        self._check_whole()
        missing = [row.key for row in self.rows if figure not in row.scores]
        if missing:
            raise InputError(
                f"{self.path} holds no {figure} of frame {missing[0]}: evaluate with that metric"
            )
        return np.array([row.scores[figure] for row in self.rows], dtype=np.float64)

    def seconds(self) -> Float64[np.ndarray, " F"] | None:
        """Total seconds of every frame; None where the scenes were read from files.

        Raises: InputError: a frame failed.
        """
        self._check_whole()
        if not self.rows or any("total" not in row.seconds for row in self.rows):
            return None
        return np.array([row.seconds["total"] for row in self.rows], dtype=np.float64)

    def _check_whole(self) -> None:
        if self.failed:
            raise InputError(
                f"{self.path}: {len(self.failed)} of {len(self.rows)} failed, the first is {self.failed[0]}: "
                "no mean is taken over the others; mend the cause and evaluate again"
            )


def describe_split(name: str, keys: Sequence[str]) -> dict[str, Any]:
    """What tells one split from another: its name, its number of frames, and a hash of their keys in order."""
    return {
        "name": name,
        "frames": len(keys),
        "keys": hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16],
    }


def resume(path: Path, header: Header, keys: Sequence[str]) -> list[Row]:
    """The rows that a record already holds; a new record gets its header, and a row cut off by a kill is dropped.

    Args: path: the record, in an existing folder. keys: of all frames in order.
    Raises: InputError: the record is of another method, split, seed or metrics, damaged, or cannot be written.
    """
    if not path.exists():
        write_run(path, header, [])
        return []
    run = read_run(path)
    _check_same(path, run.header, header)
    if run.keys != list(keys[: len(run.rows)]):
        raise InputError(
            f"{path} holds other frames than the first {len(run.rows)} of the split: use another folder"
        )
    write_run(path, run.header, run.rows)
    return run.rows


def write_run(path: Path, header: Header, rows: Sequence[Row]) -> None:
    """Write a whole record, or leave what was there."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in (_header_line(header), *map(_row_line, rows))))


def append(path: Path, row: Row) -> None:
    """Add a row, in one write that is flushed.

    Raises: InputError: the file cannot be written.
    """
    try:
        with path.open("a") as file:
            file.write(_row_line(row) + "\n")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; free some space, then run it again"
        ) from error


def read_run(path: Path) -> Run:
    """Read a record; a last row without its line's end, cut off by a kill, is left out.

    Raises: InputError: no such file, or no record of this version.
    """
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {path} ({error}): name a record that `densescan evaluate` wrote"
        ) from error
    parsed = [_parse_line(path, number, line) for number, line in enumerate(lines[:-1], 1)]
    if not parsed or parsed[0].get("kind") != KIND or parsed[0].get("format") != FORMAT:
        raise InputError(
            f"{path} is no record of format {FORMAT}: name a file that `densescan evaluate` wrote"
        )
    try:
        head = {f.name: parsed[0][f.name] for f in fields(Header)}
        header = Header(**head | {"metrics": tuple(head["metrics"])})
        rows = [Row(**row) for row in parsed[1:]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it and evaluate again") from error
    if twice := [key for key, count in Counter(row.key for row in rows).items() if count > 1]:
        raise InputError(
            f"{path} holds {twice[0]} twice: let one evaluation at a time write it, and begin it anew"
        )
    return Run(path, header, rows)


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged in line {number}: remove the file and evaluate again")
    return content


def _check_same(path: Path, before: Header, now: Header) -> None:
    """Refuse to go on with a run of another header."""
    for name, then, new in differences(before, now):
        raise InputError(
            f"{path} was started with {name} = {then}, got {new}: "
            "go on with the same, or write to another folder"
        )


def differences(one: Header, other: Header) -> Iterator[tuple[str, Any, Any]]:
    """What two headers differ in, but for the environment: names, and the values of both."""
    a, b = (_flat(json.loads(_header_line(header))) for header in (one, other))
    for name in sorted(a.keys() | b.keys()):
        if not name.startswith("environment.") and a.get(name) != b.get(name):
            yield name, a.get(name), b.get(name)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _header_line(header: Header) -> str:
    return json.dumps({"kind": KIND, "format": FORMAT, **asdict(header)})


def _row_line(row: Row) -> str:
    """A row without the fields that are empty."""
    content = {name: value for name, value in asdict(row).items() if value not in ({}, "", None)}
    return json.dumps(content, allow_nan=False)
