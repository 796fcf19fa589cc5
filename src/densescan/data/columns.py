"""Rows of named columns, packed or in text: the part that the PLY and the PCD format share."""

from collections.abc import Sequence

import numpy as np

from densescan.errors import InputError

_REMISSION_NAMES = ("remission", "intensity", "reflectance", "reflectivity", "scalar_intensity")
"""What point files call the strength of a return, in lower case, most trusted first."""


def select(names: Sequence[str]) -> tuple[list[int], int | None]:
    """Positions of the columns x, y, z, and of the remission where there is one.

    Args: names: column names as they stand in the file.
    Raises: InputError: a coordinate is missing.
    """
    lower = [name.lower() for name in names]
    missing = [axis for axis in "xyz" if axis not in lower]
    if missing:
        raise InputError(
            f"expected columns x, y and z, got {', '.join(names) or 'none'}; save the points with x, y, z"
        )
    remission = next((lower.index(name) for name in _REMISSION_NAMES if name in lower), None)
    return [lower.index(axis) for axis in "xyz"], remission


def from_bytes(
    data: bytes, offset: int, count: int, names: Sequence[str], types: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, 3) and remission (N,) of packed rows.

    Args: data: the file. offset: where the rows begin [bytes]. count: number of rows N. names: one a column.
        types: NumPy type of each column, with its byte order.
    Raises: InputError: a coordinate is missing, or the data end before the last row.
    """
    axes, remission = select(names)
    # Positions instead of names: files repeat names, NumPy refuses that.
    row = np.dtype([(f"column{i}", kind) for i, kind in enumerate(types)])
    require(count, len(data) - offset, count * row.itemsize)
    table = np.frombuffer(data, row, count=count, offset=offset)
    points = np.stack([table[f"column{i}"] for i in axes], axis=1)
    return points, None if remission is None else table[f"column{remission}"]


def from_text(lines: Sequence[str], count: int, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, 3) and remission (N,) of text rows, float64.

    Args: lines: at least N rows of numbers. count: number of rows N. names: one a column.
    Raises: InputError: a coordinate is missing, too few rows, or a row that is no list of numbers.
    """
    axes, remission = select(names)
    if len(lines) < count or count < 1:
        raise InputError(f"its header announces {count} points, but {len(lines)} rows follow; copy it again")
    wanted = axes if remission is None else [*axes, remission]
    try:
        table = np.loadtxt(lines[:count], usecols=wanted, ndmin=2, comments=None)
    except ValueError as error:
        reason = str(error).splitlines()[0].split(";")[0]
        raise InputError(f"a row of it is no list of numbers ({reason}); save it again") from error
    return table[:, :3], None if remission is None else table[:, 3]


def require(count: int, available: int, needed: int) -> None:
    """Refuse a number of points that the bytes at hand cannot hold, before memory is asked for them.

    Raises: InputError: no point is announced, or more than there are bytes for.
    """
    if count < 1 or available < needed:
        raise InputError(
            f"its header announces {count} points ({needed} bytes), but what follows gives {max(available, 0)} bytes "
            "at most; copy or download it again"
        )


def text_rows(data: bytes) -> list[str]:
    """The lines of a text body that are not blank."""
    return [line for line in data.decode("ascii", errors="replace").splitlines() if line.strip()]


def whole_number(text: str, what: str) -> int:
    """A count of a file header.

    Raises: InputError: not a whole number, or below zero.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InputError(f"expected a whole number as {what} in its header, got {text[:40]!r}; save it again")
    return int(text)
