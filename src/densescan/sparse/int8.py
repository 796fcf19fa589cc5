"""Rows and kernels rounded to whole numbers of 8 bits, which processors multiply twice as fast as bfloat16.

Each row of features has a scale of its own, its greatest magnitude over 127, and each output channel of a kernel a
gain, found in the same way; products of whole numbers are summed without rounding, and the scales return when the
products of a bag are added. A number thus keeps 7 bits beside the greatest of its row, a little fewer than bfloat16
gives it, and those far below the greatest fewer still.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from densescan.sparse.kernel_map import KernelMap

LARGEST = 127
_PAIRS = 2  # for each input row, from which on its rounding is made good
_AT_ONCE = 1 << 21  # numbers rounded: more would not stay in the cache
_LEAST = 1e-30  # scale of a row of zeros
_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


def multiplies_int8(device: torch.device) -> bool:
    """Whether the hardware multiplies whole numbers of 8 bits faster than others; on a GPU nothing here does."""
    fast = device.type == "cpu" and (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported())
    return fast and _products_are_exact()


@cache
def _products_are_exact() -> bool:
    """Whether the largest sums fit. Without units for these products oneDNN adds 128 to one side, which has no sign
    then, and adds pairs of products in 16 bits, where they are cut off without a word."""
    a, b = (torch.full(shape, LARGEST, dtype=torch.int8) for shape in ((64, 256), (256, 64)))
    return bool((torch._int_mm(a, b) == 256 * LARGEST**2).all())


def worth(kernel_map: KernelMap) -> bool:
    """Whether a convolution has enough products for each row that it rounds."""
    return kernel_map.n_pairs >= _PAIRS * kernel_map.n_in


@dataclass(frozen=True)
class Int8Kernel:
    """A kernel is about values * gains."""

    values: Int8[Tensor, "K C_in C_out"]
    gains: Float[Tensor, " C_out"]
    """In the type of the sums, the same for all offsets."""

    @classmethod
    def rounded(cls, kernel: Float[Tensor, "K C_in C_out"], dtype: torch.dtype) -> "Int8Kernel":
        """The nearest one. dtype: of the sums."""
        gains = (kernel.abs().amax((0, 1)) / LARGEST).clamp_min(_LEAST).to(dtype)
        return cls((kernel / gains.to(kernel.dtype)).round().to(torch.int8), gains)

    @property
    def shape(self) -> torch.Size:
        """(K, C_in, C_out)."""
        return self.values.shape


def rounded_rows(
    feats: Float[Tensor, "V C"],
) -> tuple[Int8[Tensor, "V C"], Float[Tensor, " V"]]:
    """Rows are about values * scales[:, None]; the scales have the type of the rows."""
    values, scales = torch.empty_like(feats, dtype=torch.int8), feats.new_empty(len(feats))
    size = max(1, _AT_ONCE // feats.shape[1])
    for rows, to, scale in zip(feats.split(size), values.split(size), scales.split(size), strict=True):
        torch.clamp_min(_magnitudes(rows) / LARGEST, _LEAST, out=scale)
        to.copy_(rows.to(torch.float32, copy=True).mul_(scale.float().reciprocal()[:, None]).round_())
    return values, scales


def _magnitudes(rows: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """The greatest of each row, by bits: without their signs greater numbers have greater bits, and PyTorch finds the
    greatest whole number seven times sooner than the greatest of bfloat16."""
    bits = rows.view(_BITS[rows.dtype])
    return (bits & torch.iinfo(bits.dtype).max).amax(1).view(rows.dtype)
