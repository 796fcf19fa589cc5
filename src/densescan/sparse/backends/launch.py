"""How Triton kernels are launched: on which device, in which precision, compiled or interpreted."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, no_type_check

import torch
import triton
from torch import Tensor


@triton.jit
@no_type_check
def _probe():
    pass


INTERPRETED = not isinstance(_probe, triton.runtime.JITFunction)
"""Kernels run in Triton's interpreter, on CPU tensors: TRITON_INTERPRET=1 was set before Triton was imported."""

COMPILE = {"enable_fp_fusion": True}
"""Options of every launch: products and sums may be contracted, said expressly because Triton's default changes."""


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launch on the device that holds a tensor, whichever is current."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


def cdiv(n: int, size: int) -> int:
    """How many blocks of a size hold n. Triton's function of that name takes the host ten times as long."""
    return -(-n // size)


def power_of_two(n: int) -> int:
    """The least power of two that is n or more; likewise."""
    return 1 << max(0, n - 1).bit_length()


def precision() -> str:
    """How float32 is multiplied: if torch.get_float32_matmul_precision is `highest`, in float32, otherwise in TF32."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
