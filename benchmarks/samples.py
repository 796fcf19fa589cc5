"""Outputs and gradients of a convolution at a sample of places, as plain sums in float64."""

import torch
from torch import Tensor

from densescan.sparse.backends.table import MISSING, NeighbourTable, table_of
from densescan.sparse.kernel_map import KernelMap

ROWS = 256  # of outputs and of input gradients
OFFSETS = 3  # of the weight gradient


def errors_of(
    found: list[Tensor], feats: Tensor, kernel: Tensor, grad_out: Tensor, kernel_map: KernelMap, seed: int
) -> float:
    """The largest relative error of an output, and of input and weight gradient if they are there, in a sample."""
    generator = torch.Generator().manual_seed(seed)
    feats, kernel, grad_out = (x.detach().double() for x in (feats, kernel, grad_out))
    table = table_of(kernel_map)
    pairs = [(found[0], *_sum_rows(feats, kernel, table, generator))]
    if len(found) > 1:
        adjoint = table_of(kernel_map.transposed)
        pairs.append((found[1], *_sum_rows(grad_out, kernel.transpose(1, 2), adjoint, generator)))
        pairs.append((found[2], *_sum_offsets(feats, grad_out, table, generator)))
    return max(
        ((x.detach()[places].double() - exact).norm() / exact.norm()).item() for x, places, exact in pairs
    )


def _draw(n: int, most: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:most].to(like.device)


def _sum_rows(
    feats: Tensor, kernel: Tensor, table: NeighbourTable, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some output rows, and their values."""
    columns = _draw(table.n_out, ROWS, feats, generator)
    rows = table.rows[:, columns].long()
    gathered = feats[rows.clamp(min=0)] * (rows != MISSING)[..., None]
    return table.order[columns].long(), torch.einsum("ksc,kcd->sd", gathered, kernel)


def _sum_offsets(
    feats: Tensor, grad_out: Tensor, table: NeighbourTable, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some offsets, and their weight gradients."""
    offsets = _draw(len(table.rows), OFFSETS, feats, generator)
    gradients = []
    for k in offsets.tolist():
        there = table.rows[k] != MISSING
        gradients.append(feats[table.rows[k][there].long()].T @ grad_out[table.order[there].long()])
    return offsets, torch.stack(gradients)
