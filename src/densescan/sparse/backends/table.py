"""The neighbour table of a kernel map: for every output row its input row at each offset, like patterns together.

Plain PyTorch on any device, or Triton's kernels where they compute, which do not wait for the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends import backend_of
from densescan.sparse.kernel_map import KernelMap

if TYPE_CHECKING:
    from densescan.sparse.backends.table_group import TableGroup

MISSING = -1
"""Stands in a table where an output row has no neighbour at an offset."""
MOST_OFFSETS = 27
SORTED_TOGETHER = 1 << 31 - MOST_OFFSETS
"""Tables whose numbers fit beside a pattern into 32 bits, the sign left out."""
TILE_SIZES = [1 << i for i in range(9)]
"""Columns of a tile that Triton's kernels know."""
Fill = Callable[[Int32[Tensor, "K V_out"]], object]
"""Writes a table into memory that it is given."""


@dataclass(frozen=True)
class Tiles:
    """Which offsets occur within each run of consecutive table columns, so that the others are skipped.

    offsets: numbers of the offsets that occur, in ascending order, `counts[t]` of them; what follows them is not used.
    """

    offsets: Int32[Tensor, "T K"]
    counts: Int32[Tensor, " T"]


@dataclass(frozen=True)
class OffsetPairs:
    """The row pairs of all offsets in one list; those of offset k from begins[k] on, output rows ascending.

    The lists are as long as if every pair existed, so that their number need not be waited for; what follows the last
    pair is not used.
    """

    in_rows: Int32[Tensor, " P"]
    out_rows: Int32[Tensor, " P"]
    begins: Int32[Tensor, " K_1"]


@dataclass(frozen=True)
class NeighbourTable:
    """Output row order[p] adds feats[rows[k, p]] @ kernel[k] for every k where rows[k, p] is not `MISSING`.

    Columns are sorted such that neighbouring ones miss the same offsets: see `pattern_order`.
    """

    rows: Int32[Tensor, "K V_out"]
    order: Int[Tensor, " V_out"]
    n_in: int
    _unsorted: Int32[Tensor, "K V_out"] | None = field(default=None, repr=False, compare=False)
    """The same with column p for output row p, kept where a gradient may be wanted, for `pairs`."""
    _tiles_of_group: Callable[[int], Tiles] | None = field(default=None, repr=False, compare=False)
    _tiles: dict[int, Tiles] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_rows(cls, rows: Int32[Tensor, "K V_out"], n_in: int) -> "NeighbourTable":
        """Sort the columns of a table whose column p is output row p."""
        if backend_of(rows) == "triton":
            return cls.filled(
                [(len(rows), rows.shape[1])], [lambda out: out.copy_(rows)], [n_in], rows.device
            )[0]
        order = pattern_order(rows)
        return cls(rows[:, order].contiguous(), order, n_in)

    @classmethod
    def filled(
        cls,
        shapes: Sequence[tuple[int, int]],
        fills: Sequence[Fill],
        n_in: Sequence[int],
        device: torch.device,
    ) -> "list[NeighbourTable]":
        """Make several tables and sort their columns at once, by Triton's kernels, which takes a GPU hardly longer than
        to make one. shapes: offsets and output rows of each. fills: write them, column p for output row p."""
        from densescan.sparse.backends.table_group import TableGroup

        found: list[NeighbourTable] = []
        for first in range(0, len(shapes), SORTED_TOGETHER):
            some = slice(first, first + SORTED_TOGETHER)
            group = TableGroup(shapes[some], device)
            unsorted = group.rows
            for fill, out in zip(fills[some], unsorted, strict=True):
                fill(out)
            kept = unsorted if torch.is_grad_enabled() else [None] * len(unsorted)
            orders = group.sort()
            for i, parts in enumerate(zip(group.rows, orders, n_in[some], kept, strict=True)):
                found.append(cls(*parts, partial(_tiles_of_group, group, i)))
        return found

    @classmethod
    def of_map(cls, kernel_map: KernelMap) -> "NeighbourTable":
        """The table of a list of pairs."""
        first = next(pair for pair in kernel_map.pairs if pair is not None)
        shape = (len(kernel_map.pairs), kernel_map.n_out)
        rows = torch.full(shape, MISSING, dtype=torch.int32, device=first[0].device)
        for k, pair in enumerate(kernel_map.pairs):
            if pair is None:
                rows[k] = torch.arange(kernel_map.n_out, device=rows.device)
            else:
                rows[k, pair[1]] = pair[0].int()
        return cls.of_rows(rows, kernel_map.n_in)

    @property
    def n_out(self) -> int:
        """Number of output rows."""
        return self.order.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of input rows, of output rows and of offsets."""
        return self.n_in, self.n_out, self.rows.shape[0]

    def tiles(self, size: int) -> Tiles:
        """The offsets that occur in columns t * size to (t + 1) * size; kept."""
        if size not in self._tiles:
            of_group = self._tiles_of_group if size in TILE_SIZES else None
            self._tiles[size] = of_group(size) if of_group else tiles_by_torch(self.rows, size)
        return self._tiles[size]

    @cached_property
    def pairs(self) -> OffsetPairs:
        """The same pairs as a list, output rows ascending."""
        rows = self._unsorted
        if rows is None:
            rows = torch.empty_like(self.rows)
            rows[:, self.order.long()] = self.rows
        if backend_of(rows) == "triton":
            from densescan.sparse.backends import table_kernels

            return OffsetPairs(*table_kernels.listed(rows))
        return OffsetPairs(*listed_by_torch(rows))


def listed_by_torch(
    rows: Int32[Tensor, "K V_out"],
) -> tuple[Int32[Tensor, " P"], Int32[Tensor, " P"], Int32[Tensor, " K_1"]]:
    """What `OffsetPairs` holds, of a table whose column p is output row p."""
    present = rows != MISSING
    begins = torch.zeros(len(rows) + 1, dtype=torch.int32, device=rows.device)
    begins[1:] = present.sum(1).cumsum(0)
    in_rows, out_rows = torch.zeros_like(rows).flatten(), torch.zeros_like(rows).flatten()
    offset, column = present.nonzero(as_tuple=True)
    in_rows[: len(column)], out_rows[: len(column)] = rows[offset, column], column.int()
    return in_rows, out_rows, begins


def _tiles_of_group(group: "TableGroup", i: int, size: int) -> Tiles:
    return group.tiles(size)[i]


def tiles_by_torch(rows: Int32[Tensor, "K V_out"], size: int) -> Tiles:
    """The tiles of a sorted table."""
    present = torch.nn.functional.pad(rows != MISSING, (0, -rows.shape[1] % size))
    occurs = present.unflatten(1, (-1, size)).any(2).T.contiguous()  # (T, K)
    offsets = torch.argsort((~occurs).byte(), dim=1, stable=True)
    return Tiles(offsets.int(), occurs.sum(1).int())


def pattern_order(rows: Int32[Tensor, "K V_out"]) -> Int[Tensor, " V_out"]:
    """Columns in an order in which successive ones have neighbours at the same offsets, as far as there are such; those
    with most of them come last.

    The pattern of a column (which offsets it has) is read as a number of a Gray code, in which successive numbers
    differ in one offset; the offsets that are rarely filled (corners, then edges, then faces) count most. Among equal
    patterns the order of rows is kept. Measured on noisy scenes, tiles of 128 then multiply 1.2 to 2.5 rows for each
    that exists, against 1.4 to 15 in the order of coordinates.
    """
    return torch.argsort(
        pattern_code(rows, offset_weights((len(rows),), rows.device)[0, : len(rows)]), stable=True
    )


def pattern_code(rows: Int32[Tensor, "K V_out"], weights: Int32[Tensor, " K"]) -> Int32[Tensor, " V_out"]:
    """The place of each column's pattern in a Gray code. weights: of the offsets that a column has, powers of two."""
    code = ((rows != MISSING) * weights[:, None]).sum(0, dtype=torch.int32)
    for shift in (1, 2, 4, 8, 16):  # the place in a Gray code is the running exclusive or of its digits
        code ^= code >> shift
    return code


@cache
def offset_weights(n_offsets: tuple[int, ...], device: torch.device) -> Int32[Tensor, "T KS"]:
    """Of several tables, a power of two for each offset, the greater the more rarely it is filled; zeros up to 32."""
    weights = torch.zeros(len(n_offsets), 32, dtype=torch.int32)
    for row, n in zip(weights, n_offsets, strict=True):
        for significance, k in enumerate(sorted(range(n), key=_rarity)):
            row[k] = 1 << significance
    return weights.to(device)


def _rarity(k: int) -> int:
    """Steps from the centre to offset k of the 3x3x3 kernel: the more there are, the more rarely is it filled."""
    return sum(abs(digit - 1) for digit in (k % 3, k // 3 % 3, k // 9))


def table_of(kernel_map: KernelMap) -> NeighbourTable:
    """The neighbour table of a map: its own where it is one, else made of its pairs and kept with it."""
    if not hasattr(kernel_map, "neighbours"):
        vars(kernel_map)["neighbours"] = NeighbourTable.of_map(kernel_map)
    table: NeighbourTable = kernel_map.neighbours  # type: ignore[attr-defined]
    return table


def padding(table: NeighbourTable, size: int) -> float:
    """Rows multiplied for each pair that exists, where tiles of `size` columns skip what none of them has."""
    multiplied = size * int(table.tiles(size).counts.sum())
    return multiplied / max(1, int((table.rows != MISSING).sum()))
