"""NumPy's .npy and .npz as point files."""

import io
import math
import tokenize
import zipfile
import zlib

import numpy as np

from densescan.errors import InputError

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What a damaged, encrypted or unknown archive raises."""


def decode(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, 3) and fourth column (N,), if any, of an .npy file; pickled objects are never loaded.

    The header is checked against the length of the data first, so that an absurd shape costs no memory.

    Args: data: the whole file.
    Raises: InputError: not an .npy file, another shape than (N, 3 or more), no numbers, or a wrong length.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read_header(stream)
    except (ValueError, tokenize.TokenError) as error:
        raise InputError("it holds no NumPy array; save the points with numpy.save") from error
    if len(shape) != 2 or shape[1] < 3 or dtype.kind not in "fiu":
        raise InputError(
            f"expected numbers in shape (N, 3 or more), got shape {shape} of {dtype}; save x, y, z columns"
        )
    length = len(data) - stream.tell()
    if math.prod(shape) * dtype.itemsize != length:
        raise InputError(
            f"an array of shape {shape} of {dtype} was announced, but {length} bytes follow; save it again"
        )
    values = np.frombuffer(data, dtype, offset=stream.tell()).reshape(
        shape, order="F" if fortran_order else "C"
    )
    return values[:, :3], values[:, 3] if shape[1] > 3 else None


def decode_archive(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """As `decode`, for the array `points` of an .npz file, or for its only array.

    Args: data: the whole file.
    Raises: InputError: a damaged archive, several arrays and none called `points`, or see `decode`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            name = "points.npy" if "points.npy" in names else names[0] if len(names) == 1 else None
            member = archive.read(name) if name else None
    except _ZIP_ERRORS as error:
        raise InputError("it is no .npz archive or a damaged one; save it again with numpy.savez") from error
    if member is None:
        found = ", ".join(entry.removesuffix(".npy") for entry in names) or "none"
        raise InputError(f"expected one array or one called 'points', got {found}; save it with points=...")
    return decode(member)


def encode(points: np.ndarray) -> bytes:
    """The .npy file of an array of points."""
    stream = io.BytesIO()
    np.save(stream, points, allow_pickle=False)
    return stream.getvalue()
