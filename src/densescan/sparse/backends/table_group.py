"""Neighbour tables that are made together, one launch for all: patterns of columns, columns in order, and the offsets
that occur in tiles of them.

The kernels compute what `table.pattern_code` and `table.tiles_by_torch` define. All offsets of a column are loaded at
once: one after the other, a program would wait for memory so many times.
"""

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int32, Int64
from torch import Tensor

from densescan.sparse.backends import room
from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of, power_of_two
from densescan.sparse.backends.table import MOST_OFFSETS, TILE_SIZES, Tiles, offset_weights

_COLUMNS = 128  # columns of a program that has all their entries
_SPAN = max(TILE_SIZES)
"""Programs count the columns of each table from a multiple of this on, so that none has columns of two tables."""
_FIELDS = 5  # of a table's layout: offsets, columns, its first entry, its first column, the same for programs


@triton.jit
@no_type_check
def _table_at(layout, place, T: tl.constexpr, TS: tl.constexpr, FIELDS: tl.constexpr):
    """Which of T tables a program's first column belongs to, and its layout. TS: T or more, a power of two."""
    number = tl.arange(0, TS)
    starts = tl.load(layout + FIELDS * number + 4, mask=number < T, other=0x7FFFFFFFFFFFFFFF)
    table = tl.sum((starts <= place).to(tl.int32), axis=0) - 1
    field = layout + FIELDS * table
    n_offsets, n = tl.load(field).to(tl.int32), tl.load(field + 1).to(tl.int32)
    return (
        table,
        n_offsets,
        n,
        tl.load(field + 2),
        tl.load(field + 3).to(tl.int32),
        tl.load(field + 4).to(tl.int32),
    )


@triton.jit
@no_type_check
def _codes_kernel(
    entries, layout, weights, codes,  # int32, (T, FIELDS) int64, (T, KS) int32, int32
    T: tl.constexpr, TS: tl.constexpr, FIELDS: tl.constexpr, MOST_OFFSETS: tl.constexpr, KS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """codes: of every column of every table, the number of the table, then the place of its pattern in a Gray code.

    weights: of the offsets that a column has. KS: `MOST_OFFSETS` or more, a power of two.
    """
    place = tl.program_id(0) * BLOCK
    table, n_offsets, n, entry, first, start = _table_at(layout, place, T, TS, FIELDS)
    k = tl.arange(0, KS)[:, None]
    column = place - start + tl.arange(0, BLOCK)
    there = (k < n_offsets) & (column < n)[None, :]
    row = tl.load(entries + entry + (k * n + column[None, :]), mask=there, other=-1)
    found = tl.sum(tl.where(row >= 0, tl.load(weights + table * KS + k), 0), axis=0)
    for shift in tl.static_range(5):
        found ^= found >> (1 << shift)
    tl.store(codes + first + column, found + (table << MOST_OFFSETS), mask=column < n)


@triton.jit
@no_type_check
def _permute_kernel(
    entries, layout, order, ordered, own,  # int32, (T, FIELDS) int64, int64, int32, int32
    T: tl.constexpr, TS: tl.constexpr, FIELDS: tl.constexpr, KS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Columns in the order of all tables, one after the other; own: the same, counted from each table's first."""
    place = tl.program_id(0) * BLOCK
    _, n_offsets, n, entry, first, start = _table_at(layout, place, T, TS, FIELDS)
    k = tl.arange(0, KS)[:, None]
    column = place - start + tl.arange(0, BLOCK)
    source = tl.load(order + first + column, mask=column < n, other=0).to(tl.int32) - first
    tl.store(own + first + column, source, mask=column < n)
    there = (k < n_offsets) & (column < n)[None, :]
    row = tl.load(entries + entry + (k * n + source[None, :]), mask=there, other=0)
    tl.store(ordered + entry + (k * n + column[None, :]), row, mask=there)


@triton.jit
@no_type_check
def _tiles_kernel(
    ordered, layout, offsets, counts,  # int32, (T, FIELDS) int64, int32, int32
    T: tl.constexpr, TS: tl.constexpr, FIELDS: tl.constexpr, MOST_OFFSETS: tl.constexpr, KS: tl.constexpr,
    SIZE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The offsets that occur in each run of SIZE columns, ascending, and how many they are.

    Those of a table's tile t are the first counts[s + t] from offsets[MOST_OFFSETS s + K t] on, s = its start / SIZE.
    """
    place = tl.program_id(0) * (SIZE * TILES)
    _, n_offsets, n, entry, _, start = _table_at(layout, place, T, TS, FIELDS)
    tile, base = (place - start) // SIZE + tl.arange(0, TILES), start // SIZE
    k = tl.arange(0, KS)[:, None, None]
    column = tile[None, :, None] * SIZE + tl.arange(0, SIZE)[None, None, :]
    there = (k < n_offsets) & (column < n)
    occurs = tl.max(tl.load(ordered + entry + (k * n + column), mask=there, other=-1), axis=2) >= 0
    occurs = occurs.to(tl.int32)  # (KS, TILES)
    slot = base * MOST_OFFSETS + tile[None, :] * n_offsets + tl.cumsum(occurs, axis=0) - 1
    number = tl.arange(0, KS)[:, None] + tl.zeros_like(occurs)
    tl.store(offsets + slot, number, mask=occurs > 0)
    tl.store(counts + base + tile, tl.sum(occurs, axis=0), mask=tile * SIZE < n)


class TableGroup:
    """Tables whose entries lie in one array, to be filled, then sorted.

    shapes: offsets and columns of each, at most `table.SORTED_TOGETHER`.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> None:
        self._shapes = tuple(shapes)
        starts, entries, columns, end = [], 0, 0, 0
        for n_offsets, n in self._shapes:
            starts.append((n_offsets, n, entries, columns, end))
            entries, columns, end = entries + n_offsets * n, columns + n, end + cdiv(n, _SPAN) * _SPAN
        self._starts, self._n_columns, self._end = starts, columns, end
        self._layout = _on_device(tuple(starts), device)
        self._weights = offset_weights(tuple(k for k, _ in self._shapes), device)
        self._form = {"T": len(starts), "TS": power_of_two(len(starts)), "FIELDS": _FIELDS, **COMPILE}
        self._entries = torch.empty(entries, dtype=torch.int32, device=device)
        self._tiles: dict[int, list[Tiles]] = {}

    @property
    def rows(self) -> list[Int32[Tensor, "K V"]]:
        """The tables: where they are to be filled, and after that, in order."""
        sizes = [n_offsets * n for n_offsets, n in self._shapes]
        return [
            part.view(shape) for part, shape in zip(self._entries.split(sizes), self._shapes, strict=True)
        ]

    def sort(self) -> list[Int32[Tensor, " V"]]:
        """Sort the columns of each table, see `table.pattern_order`; gives their order."""
        codes, own = (self._entries.new_empty(self._n_columns) for _ in range(2))
        ordered = torch.empty_like(self._entries)
        if self._n_columns:
            with on_device_of(codes):
                _codes_kernel[(self._end // _COLUMNS,)](
                    self._entries, self._layout, self._weights, codes,
                    MOST_OFFSETS=MOST_OFFSETS, KS=self._weights.shape[1], BLOCK=_COLUMNS, **self._form,
                )  # fmt: skip
                order = torch.argsort(codes, stable=True)
                _permute_kernel[(self._end // _COLUMNS,)](
                    self._entries, self._layout, order, ordered, own,
                    KS=self._weights.shape[1], BLOCK=_COLUMNS, **self._form,
                )  # fmt: skip
        self._entries = ordered
        return list(own.split([n for _, n in self._shapes]))

    def tiles(self, size: int) -> list[Tiles]:
        """`NeighbourTable.tiles` of all tables; kept. size: one of `table.TILE_SIZES`."""
        if size not in self._tiles:
            self._tiles[size] = self._find_tiles(size)
        return self._tiles[size]

    def _find_tiles(self, size: int) -> list[Tiles]:
        n_tiles, at_once = self._end // size, max(1, _COLUMNS // size)
        offsets, counts = self._entries.new_empty(n_tiles * MOST_OFFSETS), self._entries.new_empty(n_tiles)
        if n_tiles:
            with on_device_of(counts):
                _tiles_kernel[(cdiv(n_tiles, at_once),)](
                    self._entries, self._layout, offsets, counts,
                    MOST_OFFSETS=MOST_OFFSETS, KS=self._weights.shape[1], SIZE=size, TILES=at_once, **self._form,
                )  # fmt: skip
        found = []
        for n_offsets, n, _, _, start in self._starts:
            own, first = cdiv(n, size), start // size
            slots = offsets[first * MOST_OFFSETS :][: own * n_offsets]
            found.append(Tiles(slots.view(own, n_offsets), counts[first : first + own]))
        return found


def _on_device(layout: tuple[tuple[int, ...], ...], device: torch.device) -> Int64[Tensor, "T FIELDS"]:
    """The layout as a tensor; a room, whose launches read it anew in every replay, keeps it."""
    entered = room.current()
    if entered is None:
        on_host = torch.tensor(layout, pin_memory=device.type == "cuda")
        return on_host.to(device, non_blocking=True)
    if layout not in entered.kept:
        entered.kept[layout] = torch.tensor(layout, device=device)
    return entered.kept[layout]
