"""How near the convolutions of a run come to what the processor can multiply.

How fast a processor is changes with what its neighbours do, by a fifth within a minute. What it can multiply is
therefore measured again and again between the convolutions.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from densescan.sparse import functional
from densescan.sparse.int8 import Int8Kernel
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.matmul import matmul

PEAK_SIDE = 1024
PEAK_SECONDS = 0.05  # of products after each stretch
STRETCH = 0.5  # seconds of convolutions


@dataclass(frozen=True)
class Load:
    """Work of all convolutions between voxels."""

    flop: float
    """Of the pairs alone: no padding, no bias, no sums."""
    seconds: float
    """Wall clock within them: gather, multiply, sum, norm, shortcut and ReLU."""
    peaks: tuple[float, ...]
    """FLOP/s of the fastest product of square matrices in the same type, after each stretch of convolutions."""

    @property
    def peak(self) -> float:
        """What the processor could multiply in the meantime [FLOP/s]: the stretches' mean."""
        return statistics.fmean(self.peaks)

    @property
    def share(self) -> float:
        """Of that peak that the convolutions reach."""
        return self.flop / self.seconds / self.peak

    @property
    def share_of_highest(self) -> float:
        """Of the highest of the peaks."""
        return self.flop / self.seconds / max(self.peaks)


def measure_load(work: Callable[[], object], dtype: torch.dtype) -> Load:
    """Count and time the convolutions of some work that multiply in a type, and measure its peak in between."""
    flop, stretch, stretches, convolve = 0.0, 0.0, [], functional.convolve
    peaks: list[float] = []

    def counting(feats: Tensor, kernel: Tensor | Int8Kernel, kernel_map: KernelMap, *rest: object) -> Tensor:
        nonlocal flop, stretch
        if (torch.int8 if isinstance(kernel, Int8Kernel) else feats.dtype) != dtype:
            return convolve(feats, kernel, kernel_map, *rest)
        copies = feats.shape[1:-1].numel()
        chunks = kernel_map.chunks(feats.dtype)  # not part of the convolution
        flop += 2.0 * sum(len(chunk.bags) for chunk in chunks) * copies * kernel.shape[1] * kernel.shape[2]
        began = time.perf_counter()
        out = convolve(feats, kernel, kernel_map, *rest)
        stretch += time.perf_counter() - began
        if stretch > STRETCH:
            peaks.append(matrix_peak(dtype))
            stretches.append(stretch)
            stretch = 0.0
        return out

    with mock.patch.object(functional, "convolve", counting):
        work()
    return Load(flop, sum(stretches) + stretch, tuple(peaks) or (matrix_peak(dtype),))


def matrix_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some products of square matrices; of whole numbers, as many operations a second."""
    a, b = ((30 * torch.randn(PEAK_SIDE, PEAK_SIDE)).to(dtype) for _ in range(2))
    whole = dtype == torch.int8
    out, multiply = a.to(torch.int32 if whole else dtype), torch._int_mm if whole else matmul
    fastest, end = float("inf"), time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        multiply(a, b, out=out)
        fastest = min(fastest, time.perf_counter() - began)
    return 2.0 * PEAK_SIDE**3 / fastest
