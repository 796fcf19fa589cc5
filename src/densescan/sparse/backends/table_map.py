"""Kernel maps that are built on the device as neighbour tables, without waiting for it."""

from collections.abc import Sequence
from functools import cached_property, partial

import torch
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.search import neighbour_rows
from densescan.sparse.backends.table import Fill, NeighbourTable
from densescan.sparse.backends.table_kernels import children_rows, parent_rows
from densescan.sparse.kernel_map import KernelMap


class TableMap(KernelMap):
    """A kernel map as a table; tables of map and adjoint are made where asked for, and so are the pairs.

    fill, fill_adjoint: write the tables of the map and of its adjoint, columns in the order of the output rows.
    """

    def __init__(
        self, fill: Fill, fill_adjoint: Fill, n_offsets: int, n_in: int, n_out: int, device: torch.device
    ) -> None:
        vars(self).update(
            fills=(fill, fill_adjoint), n_offsets=n_offsets, n_in=n_in, n_out=n_out, device=device
        )

    @cached_property
    def neighbours(self) -> NeighbourTable:
        """The sorted table; what `table.table_of` takes."""
        maps: Sequence[TableMap] = vars(self).get("together", [self])
        shapes, fills = [(vars(m)["n_offsets"], m.n_out) for m in maps], [vars(m)["fills"][0] for m in maps]
        tables = NeighbourTable.filled(shapes, fills, [m.n_in for m in maps], vars(self)["device"])
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

    @property
    def transposed(self) -> "TableMap":
        """As `KernelMap`."""
        adjoint = super().transposed
        assert isinstance(adjoint, TableMap)
        return adjoint

    def _transposed(self) -> "TableMap":
        fill, fill_adjoint = vars(self)["fills"]
        n_offsets, device = vars(self)["n_offsets"], vars(self)["device"]
        return TableMap(fill_adjoint, fill, n_offsets, self.n_out, self.n_in, device)


def sort_together(maps: Sequence[TableMap]) -> None:
    """Make the tables of all these maps when that of one is asked for."""
    for one in maps:
        vars(one)["together"] = maps


def submanifold_map(keys: Int[Tensor, " V"]) -> TableMap:
    """As `kernel_map.submanifold_map`. Symmetric: offset 26 - k undoes offset k."""
    n = len(keys)

    def fill_adjoint(out: Int32[Tensor, "27 V"]) -> None:
        rows = torch.empty_like(out)
        neighbour_rows(keys, rows)
        out.copy_(rows.flip(0))

    found = TableMap(partial(neighbour_rows, keys), fill_adjoint, 27, n_in=n, n_out=n, device=keys.device)
    vars(found)["symmetric"] = True
    return found


def strided_map(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], n_coarse: int) -> TableMap:
    """As `kernel_map.strided_map`. Rows whose parent is negative are of no voxel, or theirs has no room."""
    return TableMap(
        partial(children_rows, parent, slot),
        partial(parent_rows, parent, slot),
        8, n_in=len(parent), n_out=n_coarse, device=parent.device,
    )  # fmt: skip
