"""Kernel maps that are built on the device as neighbour tables, without waiting for it."""

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.search import neighbour_rows
from densescan.sparse.backends.table import MISSING, NeighbourTable
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
        return NeighbourTable.of_rows(vars(self)["rows"][0](), self.n_in)

    @cached_property
    def pairs(self) -> tuple[tuple[Tensor, Tensor] | None, ...]:  # type: ignore[override]
        """As `KernelMap`; waits for the device."""
        pairs = self.neighbours.pairs
        sizes = pairs.begins.diff().tolist()
        return tuple(zip(pairs.in_rows.long().split(sizes), pairs.out_rows.long().split(sizes), strict=True))

    @cached_property
    def transposed(self) -> KernelMap:
        """As `KernelMap`."""
        rows, adjoint_rows = vars(self)["rows"]
        return TableMap(adjoint_rows, rows, n_in=self.n_out, n_out=self.n_in)


def submanifold_map(keys: Int[Tensor, " V"]) -> TableMap:
    """As `kernel_map.submanifold_map`. Offset 26 - k undoes offset k."""
    return TableMap(
        lambda: neighbour_rows(keys), lambda: neighbour_rows(keys).flip(0), n_in=len(keys), n_out=len(keys)
    )


def strided_map(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], n_coarse: int) -> TableMap:
    """As `kernel_map.strided_map`."""
    fine = torch.arange(len(parent), device=parent.device)

    def table(ins: Tensor, outs: Tensor, n_out: int) -> Tensor:
        rows = torch.full((8 * n_out,), MISSING, dtype=torch.int32, device=ins.device)
        return rows.scatter_(0, slot * n_out + outs, ins.int()).view(8, n_out)

    return TableMap(
        lambda: table(fine, parent, n_coarse),
        lambda: table(parent, fine, len(parent)),
        n_in=len(parent),
        n_out=n_coarse,
    )
