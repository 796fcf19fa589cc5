"""Faster ways to compute what `sparse.functional` computes, and the choice between them.

On CUDA the Triton kernels are used where Triton is installed; everything else, on every device, is plain PyTorch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["torch", "triton"]

_chosen: ContextVar[Backend | None] = ContextVar("densescan_backend", default=None)


def backend_of(tensor: Tensor) -> Backend:
    """Who computes on a tensor: `triton` on CUDA where it is installed (not in float64), otherwise `torch`.

    Within `using` it is the named one, on any device; Triton computes on CPU tensors in its interpreter only.
    """
    if (chosen := _chosen.get()) is not None:
        return chosen
    fits = tensor.device.type == "cuda" and tensor.dtype != torch.float64
    return "triton" if fits and find_spec("triton") is not None else "torch"


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Leave no choice: for tests, and to compare backends."""
    token = _chosen.set(backend)
    try:
        yield
    finally:
        _chosen.reset(token)
