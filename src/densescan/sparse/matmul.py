"""Matrix products by the library that is fastest on the processor at hand."""

import torch
from jaxtyping import Float
from torch import Tensor

_ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def matmul(
    a: Float[Tensor, "N C"], b: Float[Tensor, "C D"], out: Float[Tensor, "N D"] | None = None
) -> Float[Tensor, "N D"]:
    """a @ b, into `out` where there is one. Not differentiable.

    PyTorch multiplies float32 on CPUs with MKL, which leaves processors that are not Intel's without AVX-512; oneDNN,
    which PyTorch uses for reduced types, does not: the same float32 sums in less than half the time.
    """
    if a.dtype != torch.float32 or a.device.type != "cpu" or not _ONEDNN:
        return torch.mm(a, b, out=out)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return product if out is None else out.copy_(product)
