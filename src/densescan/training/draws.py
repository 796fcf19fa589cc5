"""Random numbers of training: each crop has its own, whichever batch, process or run it is drawn in."""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from densescan.diffusion.samplers.interface import NoiseFn

_DRAWING = ThreadPoolExecutor(1, "densescan draws")


class Draws:
    """The random numbers of a batch, stacked crop by crop.

    Every crop has one stream of numbers for each purpose, seeded by (seed, number of the crop, purpose). Asking
    again for the same purpose goes on with its stream; a new purpose, or another crop in the batch, moves no other
    number. Two processes with half a batch each therefore draw what one with the whole batch draws, and a resumed
    run draws what an uninterrupted one does without saving any state. Numbers are drawn on the CPU, so that every
    device sees the same.

    Args: seed: of the run. crops: numbers of the batch's crops, in its order.
    """

    def __init__(self, seed: int, crops: Sequence[int]) -> None:
        self._streams = [_Streams(seed, crop) for crop in crops]

    def __len__(self) -> int:
        return len(self._streams)

    def chosen(self, rows: Sequence[int]) -> "Draws":
        """The draws of some of the batch's crops: they share their streams."""
        some = Draws(0, ())
        some._streams = [self._streams[i] for i in rows]
        return some

    def normal(self, purpose: str, like: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Standard normal noise of the shape, dtype and device of `like`, whose first axis is the batch."""
        return self.normal_ahead(purpose, like)()

    def normal_ahead(
        self, purpose: str, like: Float[Tensor, "B *shape"]
    ) -> Callable[[], Float[Tensor, "B *shape"]]:
        """The same, to be called for: a thread draws it from now on, while the host gets a network's launches ready."""

        def draw() -> Tensor:
            drawn = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
            for stream, part in zip(self._streams, drawn, strict=True):
                torch.randn(part.shape, generator=stream.of(purpose), dtype=like.dtype, out=part)
            return drawn

        drawing = _DRAWING.submit(draw)
        return lambda: drawing.result().to(like.device, non_blocking=like.is_cuda)

    def integers(self, purpose: str, end: int, start: int = 0) -> Int64[Tensor, " B"]:
        """A whole number in [start, end) for each crop, on the CPU."""
        return torch.cat([torch.randint(start, end, (1,), generator=s.of(purpose)) for s in self._streams])

    def uniform(self, purpose: str) -> Float[Tensor, " B"]:
        """A number in [0, 1) for each crop, on the CPU."""
        return torch.cat([torch.rand(1, generator=s.of(purpose)) for s in self._streams])

    def noise(self, purpose: str) -> NoiseFn:
        """A source of noise for a sampler: every call goes on with the streams of the purpose."""
        return lambda like: self.normal(purpose, like)


class _Streams:
    """The generators of one crop, made when they are first asked for."""

    def __init__(self, seed: int, crop: int) -> None:
        self.seed, self.crop = seed, crop
        self.generators: dict[str, torch.Generator] = {}

    def of(self, purpose: str) -> torch.Generator:
        if purpose not in self.generators:
            entropy = np.random.SeedSequence([self.seed, self.crop, zlib.crc32(purpose.encode())])
            self.generators[purpose] = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        return self.generators[purpose]
