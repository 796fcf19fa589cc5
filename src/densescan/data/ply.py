"""The PLY format: ASCII and binary of either byte order, extra properties and faces tolerated."""

import re
from dataclasses import dataclass, field

import numpy as np

from densescan.data import columns
from densescan.errors import InputError

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 20
"""Bytes in which a header must end."""


@dataclass
class _Element:
    """One table of the file: `vertex`, `face`, ..."""

    name: str
    count: int
    names: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    """NumPy type of each property, without byte order."""
    length_types: list[str | None] = field(default_factory=list)
    """Type of the length that precedes a list property; None for a single value."""

    @property
    def has_lists(self) -> bool:
        return any(length is not None for length in self.length_types)


def decode(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, 3) and remission (N,), if any, of a PLY file.

    Args: data: the whole file.
    Raises: InputError: a damaged header, no vertices with x, y, z, or fewer bytes than announced.
    """
    end = re.search(rb"[\r\n]end_header(\r\n|\n|\r)", data[:_MAX_HEADER])
    if not data.startswith(b"ply") or end is None:
        raise InputError("it does not begin with a complete PLY header; copy or download it again")
    byte_order, elements = _parse_header(data[: end.start()].decode("ascii", errors="replace"))
    position = next((i for i, element in enumerate(elements) if element.name == "vertex"), None)
    if position is None:
        raise InputError("its header lists no element 'vertex'; save it as a point cloud")
    vertex, before = elements[position], elements[:position]
    if vertex.has_lists:
        raise InputError("its vertices carry list properties; save it with single values a vertex")
    if byte_order == "":
        rows = columns.text_rows(data[end.end() :])
        return columns.from_text(rows[sum(element.count for element in before) :], vertex.count, vertex.names)
    offset = end.end()
    for element in before:
        offset = _skip(data, offset, element, byte_order)
    return columns.from_bytes(
        data, offset, vertex.count, vertex.names, [byte_order + kind for kind in vertex.types]
    )


def encode(points: np.ndarray) -> bytes:
    """The binary little-endian PLY file of float32 points (N, 3)."""
    properties = "".join(f"property float {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    return header.encode("ascii") + np.ascontiguousarray(points, dtype="<f4").tobytes()


def _parse_header(header: str) -> tuple[str, list[_Element]]:
    byte_order: str | None = None
    elements: list[_Element] = []
    for line in header.splitlines()[1:]:
        match line.split():
            case ["format", name, *_]:
                byte_order = _BYTE_ORDERS.get(name)
            case ["element", name, count]:
                elements.append(_Element(name, columns.whole_number(count, f"number of '{name}'")))
            case ["property", *words] if elements:
                _add_property(elements[-1], words, line)
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise InputError(f"its header has the line {line[:60]!r}, which is not PLY; save it again")
    if byte_order is None:
        raise InputError(f"its header names no known format; expected one of {', '.join(_BYTE_ORDERS)}")
    return byte_order, elements


def _add_property(element: _Element, words: list[str], line: str) -> None:
    match words:
        case ["list", length, kind, name] if length in _TYPES and kind in _TYPES and _TYPES[length][0] != "f":
            element.length_types.append(_TYPES[length])
        case [kind, name] if kind in _TYPES:
            element.length_types.append(None)
        case _:
            raise InputError(f"its header has the line {line[:60]!r}, which is not PLY; save it again")
    element.names.append(name)
    element.types.append(_TYPES[kind])


def _skip(data: bytes, offset: int, element: _Element, byte_order: str) -> int:
    """Where the table after this one begins; tables with lists have to be walked through."""
    sizes = [np.dtype(kind).itemsize for kind in element.types]
    if not element.has_lists:
        return offset + element.count * sum(sizes)
    for _ in range(element.count):
        for length_type, size in zip(element.length_types, sizes, strict=True):
            length = 1
            if length_type is not None:
                kind = np.dtype(byte_order + length_type)
                if offset + kind.itemsize > len(data):
                    raise InputError(
                        f"it ends within its element '{element.name}'; copy or download it again"
                    )
                length = max(int(np.frombuffer(data, kind, count=1, offset=offset)[0]), 0)
                offset += kind.itemsize
            offset += length * size
    return offset
