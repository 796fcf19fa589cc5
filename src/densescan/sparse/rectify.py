"""ReLU and limits in few instructions.

PyTorch turns reduced types into float32 and back for every operation on CPUs, which takes five times as long as reading
and writing them. Limiting needs no arithmetic: among numbers that are not negative, greater ones have greater bits, and
every negative number is a negative integer. So ReLU is max(bits, 0), and an upper limit above it is min(bits, bits of
the limit).
"""

import torch
from jaxtyping import Float
from torch import Tensor

REDUCED = (torch.bfloat16, torch.float16)


def _reduced(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in REDUCED


def rectify(
    x: Float[Tensor, "*shape C"], limits: Float[Tensor, "2 C"] | None, out: Float[Tensor, "*shape C"]
) -> None:
    """out = max(x, 0), of x within limits if there are any.

    limits: the least and the greatest value of each channel. Of a NaN in a reduced type, where bits are compared, a
    limit or zero may come.
    """
    ends = None if limits is None else limits.clamp_min(0)
    if _reduced(x):
        bits = torch.int16
        x, out = x.view(bits), out.view(bits)
        ends = None if ends is None else ends.view(bits)
    if ends is None:
        torch.clamp_min(x, 0, out=out)
    else:
        torch.clamp(x, *ends.unbind(0), out=out)


def clamp(x: Float[Tensor, "*shape C"], limits: Float[Tensor, "2 C"], out: Float[Tensor, "*shape C"]) -> None:
    """out = x within limits, the least and the greatest value of each channel.

    In two operations where one takes up to three times as long as both.
    """
    low, high = limits.unbind(0)
    if _reduced(x):
        torch.minimum(x, high, out=out)
        torch.maximum(out, low, out=out)
    else:
        torch.clamp(x, low, high, out=out)
