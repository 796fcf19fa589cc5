"""Float32 products by oneDNN.

PyTorch multiplies float32 on CPUs with MKL, which leaves processors that are not Intel's without AVX-512; oneDNN, which
PyTorch uses for reduced types, does not: the same float32 sums in less than half the time. There are two ways to it, to
the same bits. A fused linear layer is always computed by oneDNN, but it has no room for a result that is already there,
and turns matrices that are transposed around. And `torch.mm` takes oneDNN where float32 may be multiplied as bfloat16:
a permission that oneDNN makes use of on processors with units for tiles (AMX), and that on others changes nothing but
the library. Which of both this processor is, a product with known rounding tells.

The permission holds for all threads, and would let small products of another thread, which are MKL's, be rounded
otherwise now and then. It is therefore taken only as long as one thread alone has multiplied here.
"""

import threading
from functools import cache
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
        with THREADS.lock:
            if THREADS.one:
                return _permitted(a, b, out)
    elif a.ndim > 2:
        return multiply(a, b, out)
    if a.ndim == 2:
        product = _linear(a, b)
        return product if out is None else out.copy_(product)
    out = a.new_empty(*a.shape[:-1], b.shape[-1]) if out is None else out
    for x, y, product in zip(a, b, out, strict=True):
        product.copy_(_linear(x, y))
    return out


@cache
def permission_is_harmless() -> bool:
    """Whether this processor multiplies float32 as float32, even where bfloat16 is allowed."""
    if not (AVAILABLE and _CAPABILITY.startswith("AVX512") and _CHOICE is not None):
        return False
    fine = torch.full((1024, 256), 1 + 2**-12)  # 1 in bfloat16, and in TensorFloat-32
    with THREADS.lock:
        return torch.equal(_permitted(fine, torch.eye(256)), fine)


class Threads:
    """Whether one thread alone multiplies.

    lock: held while the permission is; who is not `one` waits for it once, see `enter`.
    """

    def __init__(self) -> None:
        self.lock, self.one, self._first = threading.Lock(), True, 0

    def enter(self) -> None:
        """This thread multiplies from now on."""
        me = threading.get_ident()
        if me != self._first and self.one:
            with self.lock:
                self.one = not self._first
                self._first = self._first or me


THREADS = Threads()


def _permitted(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    before = _CHOICE.fp32_precision
    _CHOICE.fp32_precision = "bf16"
    try:
        return multiply(a, b, out)
    finally:
        _CHOICE.fp32_precision = before


def _linear(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return product
