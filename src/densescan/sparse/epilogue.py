"""What follows a convolution, done before its output leaves the processor's cache, or a GPU's registers."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Epilogue:
    """Layer norm, gain, shift, limits, residual, ReLU, in this order; all may be missing."""

    gain: Float[Tensor, " C_out"] | None = None
    """Multiplies each channel."""
    shift: Float[Tensor, " C_out"] | None = None
    """Is added to each channel."""
    layer_eps: float | None = None
    """First of all a norm over the channels of each row, with this added to the variance."""
    limits: Float[Tensor, "2 C_out"] | None = None
    """The least and the greatest value of each channel."""
    residual: Float[Tensor, "V_out *G C_out"] | None = None
    """Is added to each row."""
    relu: bool = False

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
                rows += self.shift
        if self.limits is not None:
            torch.clamp(rows, *self.limits.unbind(0), out=rows)
        if self.residual is not None:
            rows += self.residual[where]
        if self.relu:
            torch.clamp_min(rows, 0, out=out)
        elif rows is not out:
            out.copy_(rows)
