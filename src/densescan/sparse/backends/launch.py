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
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def precision() -> str:
    """How float32 is multiplied: if torch.get_float32_matmul_precision is `highest`, in float32, otherwise in TF32."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
