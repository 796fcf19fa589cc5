"""Functions of sparse tensors whose launches are recorded once, as a CUDA graph, and then made all at once.

A network is several hundred launches, which take the host longer than they take a GPU. Recorded ones always read and
write the same memory: shapes must not depend on the scene, hence the `Room`.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from densescan.sparse.backends.room import Room, within

ALONE = RLock()
"""Held while launches are recorded, and by the thread that gets the next scan ready while it uses the GPU."""


class NoRoom(Exception):
    """A scene had more voxels than a recording has room for, or points that are not valid: compute it without."""


def recorded(function: Callable[[], Any], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The launches of a function as a CUDA graph, and what the function gave, which each replay writes anew.

    The function runs once before, so that kernels are compiled and libraries ready.
    """
    with ALONE, torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
    return graph, result


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage, which may hold other recordings, is collected before, not meanwhile."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Recording:
    """A function of tensors, recorded at its first call, on tensors of those shapes.

    function: of tensors alone; it may read other memory that stays where it is, and must not wait for the device. What
        it keeps from its first run for later ones must not depend on the inputs. On a processor it runs anew in every
        call, in the room all the same.
    absent: as for `Room`. boxed: as for `Room.enough`.
    """

    def __init__(self, function: Callable[..., Any], absent: bool = False, boxed: bool = True) -> None:
        self._function, self._absent, self._boxed = function, absent, boxed
        self._inputs: list[Tensor] = []
        self._ready = self._asked = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self.output: Any = None
        """Of the latest call. On a GPU the next call overwrites it."""

    def __call__(self, *inputs: Tensor) -> Any:
        """What the function gives.

        Raises: ValueError: shapes or types that are not those of the first call.
        """
        if not self._ready:
            self._prepare(inputs)
        else:
            for mine, given in zip(self._inputs, inputs, strict=True):
                if (mine.shape, mine.dtype) != (given.shape, given.dtype):
                    raise ValueError(
                        f"recorded for {mine.shape} in {mine.dtype}, got {given.shape} in {given.dtype}"
                    )
                mine.copy_(given)
        if self._graph is None:
            self.output = self._run()
        else:
            self._graph.replay()
        self._asked = True
        return self.output

    def _prepare(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [given.clone() for given in inputs]
        device = inputs[0].device
        self._room = Room(device, absent=self._absent)
        self._run()  # finds how many voxels there are, and where
        self._room = self._room.enough(self._boxed)
        if device.type == "cuda":
            self._graph, self.output = recorded(self._run, device)
        self._ready = True

    def _run(self) -> Any:
        with within(self._room):
            return self._function(*self._inputs)

    def verdict(self) -> Bool[Tensor, ""] | None:
        """Whether all calls since the last verdict had room; None: there were none. What has no room gave nothing."""
        asked, self._asked = self._asked, False
        return self._room.held() if asked else None


def check(*recordings: Recording) -> None:
    """Look at the verdicts of several recordings; waits for the device, once.

    Raises: NoRoom: one of them had no room, and what it gave means nothing.
    """
    verdicts = [verdict for recording in recordings if (verdict := recording.verdict()) is not None]
    if verdicts and not bool(torch.stack(verdicts).all()):
        raise NoRoom
