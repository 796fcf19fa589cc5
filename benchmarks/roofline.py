"""What a machine can do at most, and how long counted work takes on it at least."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

TypeName = Literal["float32", "bfloat16", "float16"]
_SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is timed
_COPIED = {"cpu": 1 << 28, "cuda": 1 << 32}  # bytes, many times the caches
_WARM_UPS = 2


@dataclass(frozen=True)
class Machine:
    """Peak of matrix products [FLOP/s] and bandwidth of memory [B/s]."""

    name: str
    flops: float
    bandwidth: float


H200 = Machine("H200, bfloat16, as reported", 790e12, 4.3e12)
"""Dense products of 8192 x 8192 random matrices, and a copy within the device (bytes read and written)."""


@dataclass(frozen=True)
class Work:
    """Counted operations, and the bytes that have to cross memory: every input read once, every output written once."""

    flop: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flop + other.flop, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Work":
        return Work(self.flop * times, self.bytes * times)

    def seconds(self, machine: Machine, padding: float = 1.0) -> float:
        """The least time [s]: that of products or that of bytes, whichever is longer. padding: products made for each
        that counts."""
        return max(padding * self.flop / machine.flops, self.bytes / machine.bandwidth)


def median_seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a run [s]; on a GPU between events on it."""
    for _ in range(_WARM_UPS if device == "cuda" else 1):
        run()
    return statistics.median(_one(run, device) for _ in range(repeats))


def _best_seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """As `median_seconds`, of the fastest run: a peak is what other work on the machine does not hide."""
    for _ in range(_WARM_UPS):
        run()
    return min(_one(run, device) for _ in range(repeats))


def _one(run: Callable[[], object], device: str) -> float:
    if device == "cpu":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1000.0


def measure(device: str, dtype: torch.dtype, repeats: int = 5) -> Machine:
    """Peak and bandwidth of this machine, on random numbers (zeros multiply faster)."""
    n = _SIDES[device]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    flops = 2.0 * n**3 / _best_seconds(lambda: torch.mm(a, b, out=product), device, repeats)
    source = torch.empty(_COPIED[device], dtype=torch.uint8, device=device).random_(255)
    target = torch.empty_like(source)
    bandwidth = 2.0 * len(source) / _best_seconds(lambda: target.copy_(source), device, repeats)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return Machine(name, flops, bandwidth)
