"""Matrix products by the library that is fastest on the processor at hand."""

import os
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from densescan.sparse import onednn
from densescan.sparse.scratch import Scratch

ROWS_AT_ONCE = 8_192  # of one matrix product, at most
FINEST_STEP = 32  # rows of a matrix product are a multiple of this
_HALVINGS_ON_GPU = 2  # four sizes an octave: the rows added take less time than a new shape does
_WORTH = 1 << 20  # multiplications of a float32 product from which on oneDNN's longer start is made good
# Multiplications of one of a batch of products up to which a batch is faster than one product after the other.
_BATCHED_REDUCED, _BATCHED_FLOAT32 = 1 << 26, 1 << 23

_SUMS, _INT32 = Scratch(), torch.empty(0, dtype=torch.int32)

# oneDNN compiles a product for each shape and keeps 1,024 of them unless told otherwise, fewer than a network needs for
# its layers, forward and backward. It looks when it compiles the first one.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")


def matmul(
    a: Float[Tensor, "*B N C"], b: Float[Tensor, "*B C D"], out: Float[Tensor, "*B N D"] | None = None
) -> Float[Tensor, "*B N D"]:
    """a @ b, or a batch of such products, into `out` where there is one. Not differentiable.

    Whole numbers of 8 bits: without batches, into an `out` of floating-point numbers; sums are exact before that.
    """
    onednn.THREADS.enter()
    if a.dtype == torch.int8 and out is not None:
        sums = _SUMS.like(_INT32, *out.shape)
        return out.copy_(torch._int_mm(a, b, out=sums))
    worth = a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() * b.shape[-1] >= _WORTH
    return onednn.matmul(a, b, out) if worth and onednn.AVAILABLE else onednn.multiply(a, b, out)


def batch_limit(dtype: torch.dtype, n_weights: int) -> int:
    """Up to how many rows for each matrix of so many weights one batch of products is faster than one by one."""
    if dtype == torch.int8:
        return 0
    if dtype.itemsize == 2:
        return _BATCHED_REDUCED // n_weights
    return (_BATCHED_FLOAT32 if onednn.permission_is_harmless() else _WORTH) // n_weights


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself, and so faster than float32; others would emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def repeating(counts: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Row counts rounded up to one of a few sizes, by at most an eighth or `FINEST_STEP`.

    On CPUs oneDNN compiles a product for each new shape, which can cost more than the product itself, and half a
    megabyte for as long as it is kept. The counts of voxels and pairs never repeat, the rounded ones do.
    """
    octave = torch.frexp(counts.double())[1].long()
    coarse = (1 << (octave - 5).clamp(min=0)).clamp(min=2 * FINEST_STEP)
    step = torch.where(counts < 16 * FINEST_STEP, FINEST_STEP, coarse)
    return (counts + step - 1) // step * step


def repeating_size(n: int, halvings: int = 4) -> int:
    """As `repeating`, of one number. halvings: sizes between a power of two and the next are 2^halvings."""
    step = FINEST_STEP if n < 16 * FINEST_STEP else max(2 * FINEST_STEP, 1 << n.bit_length() - 1 - halvings)
    return -(-n // step) * step


def row_blocks(n: int) -> Iterator[slice]:
    """All of n rows in blocks of a size that repeats, see `repeating`; the last one overlaps the one before.

    The size is the one that overlaps least.
    """
    if not n:
        return
    largest = min(ROWS_AT_ONCE, 1 << (n.bit_length() - 1))
    sizes = range(largest, max(largest // 2, 1) - 1, -max(largest // 16, FINEST_STEP))
    size = min(sizes, key=lambda size: -(-n // size) * size)
    for first in (*range(0, n - size, size), n - size):
        yield slice(first, first + size)


def with_repeating_rows(
    function: Callable[[Tensor], Tensor], rows: Float[Tensor, "N *shape"]
) -> Float[Tensor, "N *result"]:
    """function(rows), for a function of each row alone, computed with zeros up to a size that repeats: on CPUs, and on
    a GPU where a gradient is wanted, for cuBLAS looks for an algorithm for every new shape, backward too."""
    n = len(rows)
    on_cpu = rows.device.type == "cpu"
    if not (on_cpu or torch.is_grad_enabled()):
        return function(rows)
    missing = repeating_size(n, 4 if on_cpu else _HALVINGS_ON_GPU) - n
    return function(F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, missing)))[:n]
