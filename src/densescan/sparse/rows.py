"""Rows of features, picked and scaled."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def gather(feats: Float[Tensor, "V *GC"], rows: Int[Tensor, "*shape"]) -> Float[Tensor, "..."]:
    """feats[rows], (*shape, *GC), with a backward pass that is deterministic where rows repeat."""
    return F.embedding(rows, feats.flatten(1)).unflatten(-1, feats.shape[1:])


@dataclass(frozen=True)
class RowScale:
    """Input row i of a convolution is multiplied by weight[rows[i]]; on a GPU as it is read."""

    weight: Float[Tensor, "P C_in"]
    rows: Int[Tensor, "V_in *G"] | None
    """None: there is one factor a channel, the same for all rows."""
    spent: bool = False
    """The rows are not needed afterwards: `in_blocks` may write the product over them."""

    BLOCK = 4_096  # rows whose factors stay in the processor's cache

    def __call__(self, feats: Float[Tensor, "V_in *G C_in"]) -> Float[Tensor, "V_in *G C_in"]:
        """The product."""
        return feats * (self.weight if self.rows is None else gather(self.weight, self.rows))

    def in_blocks(self, feats: Float[Tensor, "V_in *G C_in"]) -> Float[Tensor, "V_in *G C_in"]:
        """The same, without an array of all factors. Not differentiable."""
        if self.rows is None:
            return self(feats)
        out = feats if self.spent else torch.empty_like(feats, memory_format=torch.contiguous_format)
        for rows, block, to in zip(*(x.split(self.BLOCK) for x in (self.rows, feats, out)), strict=True):
            torch.mul(block, gather(self.weight, rows), out=to)
        return out
