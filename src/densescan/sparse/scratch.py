"""Memory that convolutions work in, kept from one to the next.

What a convolution fetches and multiplies is as large as the features themselves, and differs in size from layer to
layer: asked for anew each time, it leaves holes between arrays that stay. Three hundred megabytes of them at 180,000
points in float32.
"""

import threading
from math import prod

import torch
from torch import Tensor


class Scratch(threading.local):
    """Room for one array, in each thread that asks; it grows and stays as large as the largest that was asked for."""

    def __init__(self) -> None:
        self._bytes = _bytes(0)

    def like(self, x: Tensor, *shape: int) -> Tensor:
        """An array of x's type and device, with anything in it; it shares its memory with those asked for before."""
        if x.device.type != "cpu":
            return x.new_empty(shape)
        size = prod(shape) * x.element_size()
        if size > len(self._bytes):
            self._bytes = _bytes(0)  # gives the old ones back before
            self._bytes = _bytes(size)
        return self._bytes[:size].view(x.dtype).view(shape)


def _bytes(size: int) -> Tensor:
    """So many, made outside of inference mode: what is made in it cannot be written to outside."""
    with torch.inference_mode(False):
        return torch.empty(size, dtype=torch.uint8)
