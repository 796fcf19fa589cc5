"""How near the convolutions of a run come to what the processor can multiply."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from densescan.sparse import functional
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.matmul import matmul

PEAK_SIDE = 1024
PEAK_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """Work of all convolutions between voxels."""

    flop: float
    """Of the pairs alone: no padding, no bias, no sums."""
    seconds: float
    """Wall clock within them: gather, multiply, sum, norm, shortcut and ReLU."""
    peak: float
    """FLOP/s of a product of square matrices in the same type, right after."""

    @property
    def share(self) -> float:
        """Of the peak that the convolutions reach."""
        return self.flop / self.seconds / self.peak


def measure_load(work: Callable[[], object], dtype: torch.dtype) -> Load:
    """Count and time the convolutions of some work, then the peak of its type."""
    flop, seconds, convolve = 0.0, 0.0, functional._convolve

    def counting(feats: Tensor, kernel: Tensor, kernel_map: KernelMap, *rest: object) -> Tensor:
        nonlocal flop, seconds
        copies = feats.shape[1:-1].numel()
        chunks = kernel_map.chunks(feats.dtype)  # not part of the convolution
        flop += 2.0 * sum(len(chunk.bags) for chunk in chunks) * copies * kernel.shape[1] * kernel.shape[2]
        began = time.perf_counter()
        out = convolve(feats, kernel, kernel_map, *rest)
        seconds += time.perf_counter() - began
        return out

    with mock.patch.object(functional, "_convolve", counting):
        work()
    return Load(flop, seconds, matrix_peak(dtype))


def matrix_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of many products of square matrices."""
    a, b = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype) for _ in range(2))
    out, fastest, end = torch.empty_like(a), float("inf"), time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        matmul(a, b, out=out)
        fastest = min(fastest, time.perf_counter() - began)
    return 2.0 * PEAK_SIDE**3 / fastest
