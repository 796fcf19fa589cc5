"""Float32 products by oneDNN.

PyTorch multiplies float32 on CPUs with MKL, which leaves processors that are not Intel's without AVX-512; oneDNN, which
PyTorch uses for reduced types, does not: the same float32 sums in less than half the time. There are two ways to it. A
fused linear layer is always computed by oneDNN, but it has no room for a result that is already there, and turns
matrices that are transposed around. And `torch.mm` takes oneDNN where float32 may be multiplied as bfloat16: a
permission that oneDNN makes use of on processors with units for tiles (AMX), and that on others changes nothing but
the library. Which of both this processor is, a product with known rounding tells.
"""

import threading
from functools import cache
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_CAPABILITY = torch.backends.cpu.get_cpu_capability()
AVAILABLE = torch.backends.mkldnn.is_available() and _CAPABILITY.startswith("AVX")
_CHOICE: Any = getattr(torch.backends.mkldnn, "matmul", None)  # of a precision; since PyTorch 2.9


def multiply(
    a: Float[Tensor, "*B N C"], b: Float[Tensor, "*B C D"], out: Float[Tensor, "*B N D"] | None = None
) -> Float[Tensor, "*B N D"]:
    """a @ b by whatever PyTorch takes."""
    return (torch.mm if a.ndim == 2 else torch.bmm)(a, b, out=out)


def matmul(
    a: Float[Tensor, "*B N C"], b: Float[Tensor, "*B C D"], out: Float[Tensor, "*B N D"] | None = None
) -> Float[Tensor, "*B N D"]:
    """a @ b in float32, into `out` where there is one. Not differentiable.

    Batches are multiplied by oneDNN only where the permission is harmless, else by MKL.
    """
    if permission_is_harmless():
        with _PERMISSION:
            return multiply(a, b, out)
    if a.ndim > 2:
        return multiply(a, b, out)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return product if out is None else out.copy_(product)


@cache
def permission_is_harmless() -> bool:
    """Whether this processor multiplies float32 as float32, even where bfloat16 is allowed."""
    if not (AVAILABLE and _CAPABILITY.startswith("AVX512") and _CHOICE is not None):
        return False
    fine = torch.full((1024, 256), 1 + 2**-12)  # 1 in bfloat16, and in TensorFloat-32
    with _PERMISSION:
        return torch.equal(torch.mm(fine, torch.eye(256)), fine)


class _Permission:
    """While it is entered, float32 products may be computed in bfloat16, in all threads; then what was holds again."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, ""

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = _CHOICE.fp32_precision
                _CHOICE.fp32_precision = "bf16"
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                _CHOICE.fp32_precision = self._before


_PERMISSION = _Permission()
