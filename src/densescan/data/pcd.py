"""The PCD format of the Point Cloud Library: ascii, binary and binary_compressed."""

import struct
from collections.abc import Sequence

import numpy as np

from densescan.data import columns
from densescan.errors import InputError

_KINDS = {("F", 2), ("F", 4), ("F", 8)} | {(letter, size) for letter in "IU" for size in (1, 2, 4, 8)}
_ENTRIES = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
_MAX_HEADER_LINES = 100
_MAX_COLUMNS = 4096
_LZF_MAX_GAIN = 88
"""Most bytes that a byte of LZF stands for: three bytes of reference give at most 264."""


def decode(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, 3) and remission (N,), if any, of a PCD file; the viewpoint is not applied.

    Args: data: the whole file.
    Raises: InputError: a damaged header, no fields x, y, z, or fewer bytes than announced.
    """
    entries, offset = _split_header(data)
    names, types = _columns(entries)
    count = _count(entries)
    storage = entries["DATA"][0].lower()
    if storage == "ascii":
        return columns.from_text(columns.text_rows(data[offset:]), count, names)
    if storage == "binary":
        return columns.from_bytes(data, offset, count, names, types)
    if storage == "binary_compressed":
        return _from_compressed(data, offset, count, names, types)
    raise InputError(
        f"expected DATA ascii, binary or binary_compressed, got {storage[:40]!r}; save it in one of these"
    )


def encode(points: np.ndarray) -> bytes:
    """The binary PCD file of float32 points (N, 3)."""
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA binary\n"
    )
    return header.encode("ascii") + np.ascontiguousarray(points, dtype="<f4").tobytes()


def _split_header(data: bytes) -> tuple[dict[str, list[str]], int]:
    """The header's entries and the offset of the data behind the line `DATA`."""
    entries: dict[str, list[str]] = {}
    offset = 0
    for _ in range(_MAX_HEADER_LINES):
        end = data.find(b"\n", offset, offset + (1 << 16))
        words = data[offset : max(end, offset)].decode("ascii", errors="replace").split()
        if end < 0 or (words and words[0].upper() not in _ENTRIES and not words[0].startswith("#")):
            break
        offset = end + 1
        if words:
            entries[words[0].upper()] = words[1:]
        if words and words[0].upper() == "DATA":
            if words[1:]:
                return entries, offset
            break
    raise InputError("it does not begin with a complete PCD header; copy or download it again")


def _columns(entries: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """One name and one NumPy type a column; a field that holds several values becomes several columns."""
    fields = entries.get("FIELDS", [])
    sizes = [columns.whole_number(word, "SIZE") for word in entries.get("SIZE", [])]
    kinds = [word.upper() for word in entries.get("TYPE", [])]
    repeats = [columns.whole_number(word, "COUNT") for word in entries.get("COUNT", ["1"] * len(fields))]
    if not len(fields) == len(sizes) == len(kinds) == len(repeats):
        raise InputError("its header's FIELDS, SIZE, TYPE and COUNT differ in length; save it again")
    unknown = [f"{kind}{size}" for kind, size in zip(kinds, sizes, strict=True) if (kind, size) not in _KINDS]
    if unknown or sum(repeats) > _MAX_COLUMNS:
        raise InputError(
            f"its header asks for {sum(repeats)} columns, of unknown types {unknown[:3]}; save it again"
        )
    types = [f"<{kind.lower()}{size}" for kind, size in zip(kinds, sizes, strict=True)]
    rows = [(name, kind) for name, kind, n in zip(fields, types, repeats, strict=True) for _ in range(n)]
    return [name for name, _ in rows], [kind for _, kind in rows]


def _count(entries: dict[str, list[str]]) -> int:
    if "POINTS" in entries:
        return columns.whole_number(" ".join(entries["POINTS"]), "POINTS")
    width, height = (columns.whole_number(" ".join(entries.get(key, [])), key) for key in ("WIDTH", "HEIGHT"))
    return width * height


def _from_compressed(
    data: bytes, offset: int, count: int, names: Sequence[str], types: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Unpack a body in which every column stands in one piece, compressed by LZF."""
    axes, remission = columns.select(names)
    sizes = [np.dtype(kind).itemsize for kind in types]
    packed = data[offset + 8 :]
    columns.require(count, len(packed) * _LZF_MAX_GAIN, count * sum(sizes))
    packed_length, length = struct.unpack_from("<II", data, offset)
    if packed_length > len(packed) or length != count * sum(sizes):
        raise InputError(
            f"it announces {packed_length} compressed bytes for {length} bytes, but has {len(packed)} for "
            f"{count * sum(sizes)}; copy or download it again"
        )
    body = lzf_decompress(packed[:packed_length], length)
    starts = np.concatenate([[0], np.cumsum(sizes)]) * count
    read = [np.frombuffer(body, types[i], count=count, offset=int(starts[i])) for i in axes]
    strength = None
    if remission is not None:
        strength = np.frombuffer(body, types[remission], count=count, offset=int(starts[remission]))
    return np.stack(read, axis=1), strength


def lzf_decompress(packed: bytes, length: int) -> bytes:
    """Undo LZF: runs of literal bytes, and references to bytes already written.

    Args: packed: the compressed bytes. length: length of the result [bytes].
    Raises: InputError: damaged data, or a result of another length.
    Source: LibLZF's format. A control byte c < 32 precedes c + 1 literals; otherwise its upper three bits are the
        length of a reference less 2 (7: the next byte is added), its lower five and the next byte the distance less 1.
    """
    out = bytearray()
    i = 0
    while i < len(packed) and len(out) <= length:
        control = packed[i]
        i += 1
        if control < 32:
            out += packed[i : i + control + 1]
            i += control + 1
            continue
        size = control >> 5
        tail = packed[i : i + (2 if size == 7 else 1)]
        i += len(tail)
        start = len(out) - ((control & 31) << 8) - (tail[-1] if tail else 0) - 1
        size += 2 + (tail[0] if size == 7 and tail else 0)
        if len(tail) != (2 if control >> 5 == 7 else 1) or start < 0:
            break
        piece = out[start : start + size]
        out += (piece * (size // len(piece) + 1))[:size]  # a reference may overlap what it writes
    if i < len(packed) or len(out) != length:
        raise InputError("its compressed data are damaged; copy or download it again")
    return bytes(out)
