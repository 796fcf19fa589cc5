"""Kernel maps that are built on the device as neighbour tables, without waiting for it."""

from collections.abc import Callable, Sequence
from functools import cached_property

from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.search import neighbour_rows
from densescan.sparse.backends.table import NeighbourTable
from densescan.sparse.backends.table_kernels import children_rows, parent_rows
from densescan.sparse.kernel_map import KernelMap

Rows = Callable[[], Int32[Tensor, "K V_out"]]


class TableMap(KernelMap):
    """A kernel map as a table; tables of map and adjoint are made where asked for, and so are the pairs.

    rows, adjoint_rows: make the tables of the map and of its adjoint, columns in the order of the output rows.
    """

    def __init__(self, rows: Rows, adjoint_rows: Rows, n_in: int, n_out: int) -> None:
        vars(self).update(rows=(rows, adjoint_rows), n_in=n_in, n_out=n_out)

    @cached_property
    def neighbours(self) -> NeighbourTable:
        """The sorted table; what `table.table_of` takes."""
        maps: Sequence[TableMap] = vars(self).get("together", [self])
        tables = NeighbourTable.sorted([vars(m)["rows"][0]() for m in maps], [m.n_in for m in maps])
        for other, table in zip(maps, tables, strict=True):
            vars(other)["neighbours"] = table
            vars(other).pop("together", None)  # maps that know each other would stay in memory for long
        return self.neighbours

    @cached_property
    def pairs(self) -> tuple[tuple[Tensor, Tensor] | None, ...]:  # type: ignore[override]
        """As `KernelMap`; waits for the device."""
        pairs = self.neighbours.pairs
        sizes = pairs.begins.diff().tolist()
        ins, outs = (rows[: sum(sizes)].long().split(sizes) for rows in (pairs.in_rows, pairs.out_rows))
        return tuple(zip(ins, outs, strict=True))

    @cached_property
    def transposed(self) -> "TableMap":
        """As `KernelMap`."""
        rows, adjoint_rows = vars(self)["rows"]
        return TableMap(adjoint_rows, rows, n_in=self.n_out, n_out=self.n_in)


def sort_together(maps: Sequence[TableMap]) -> None:
    """Make the tables of all these maps when that of one is asked for."""
    for one in maps:
        vars(one)["together"] = maps


def submanifold_map(keys: Int[Tensor, " V"]) -> TableMap:
    """As `kernel_map.submanifold_map`. Symmetric: offset 26 - k undoes offset k."""
    found = TableMap(
        lambda: neighbour_rows(keys), lambda: neighbour_rows(keys).flip(0), n_in=len(keys), n_out=len(keys)
    )
    vars(found)["symmetric"] = True
    return found


def strided_map(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], n_coarse: int) -> TableMap:
    """As `kernel_map.strided_map`. Rows whose parent is negative are of no voxel, or theirs has no room."""
    return TableMap(
        lambda: children_rows(parent, slot, n_coarse),
        lambda: parent_rows(parent, slot),
        n_in=len(parent),
        n_out=n_coarse,
    )
