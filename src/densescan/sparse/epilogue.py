"""What follows a convolution, done before its output leaves the processor's cache, or a GPU's registers."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from densescan.sparse.rectify import REDUCED, clamp, rectify

REGISTER = 32  # numbers of a reduced type that PyTorch takes at once


@dataclass(frozen=True)
class RowProduct:
    """What a convolution adds to its sums: the product of features on its output rows with a matrix."""

    feats: Float[Tensor, "V_out *G C"]
    kernel: Float[Tensor, "C C_out"]


@dataclass(frozen=True)
class Epilogue:
    """Layer norm, gain, shift, limits, residual, ReLU, in this order; all may be missing."""

    gain: Float[Tensor, " C_out"] | None = None
    """Multiplies each channel."""
    shift: Float[Tensor, "*rows C_out"] | None = None
    """Is added to each channel; or to each channel of each row, see `repeated`."""
    layer_eps: float | None = None
    """First of all a norm over the channels of each row, with this added to the variance."""
    limits: Float[Tensor, "2 C_out"] | None = None
    """The least and the greatest value of each channel."""
    residual: Float[Tensor, "V_out *G C_out"] | None = None
    """Is added to each row."""
    relu: bool = False
    spent: bool = False
    """The residual is not needed afterwards: the result may be written over it."""

    def repeated(self, shape: torch.Size) -> "Epilogue":
        """The same with a shift for each of many rows, where that is faster: PyTorch adds a vector to bfloat16 rows of
        16 or 48 channels, which do not fill its registers, five times slower than rows to rows.

        shape: of the most rows that it will be done to at once.
        """
        if self.shift is None or self.layer_eps is not None:
            return self
        if self.shift.dtype not in REDUCED or len(self.shift) % REGISTER == 0:
            return self
        return replace(self, shift=self.shift.expand(shape).contiguous())

    def __call__(self, rows: Tensor, where: slice, out: Tensor) -> None:
        """Do it to some output rows.

        Args: rows: sums of the convolution, which are overwritten. where: which output rows they are. out: where the
            result is written; it may be the rows themselves.
        """
        if self.layer_eps is not None:
            rows = F.layer_norm(rows, rows.shape[-1:], self.gain, self.shift, self.layer_eps)
        else:
            if self.gain is not None:
                rows *= self.gain
            if self.shift is not None:
                rows += self.shift if self.shift.ndim == 1 else self.shift[: len(rows)]
        limits = self.limits
        if self.residual is not None:
            if limits is not None:
                clamp(rows, limits, rows)
            rows += self.residual[where]
            limits = None
        if self.relu:
            rectify(rows, limits, out)
        elif limits is not None:
            clamp(rows, limits, out)
        elif rows is not out:
            out.copy_(rows)
