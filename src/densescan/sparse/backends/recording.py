"""Functions of sparse tensors whose launches are recorded once, as a CUDA graph, and then made all at once.

A network is several hundred launches, which take the host longer than they take a GPU. Recorded ones always read and
write the same memory: shapes must not depend on the scene, hence the `Room`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from densescan.sparse.backends.room import Room, within


class NoRoom(Exception):
    """A scene had more voxels than a recording has room for, or points that are not valid: compute it without."""


class Recording:
    """A function of tensors, recorded at its first call, on tensors of those shapes.

    function: of tensors alone; it may read other memory that stays where it is, and must neither wait for the device
        nor keep anything it computes. On a processor it runs anew in every call, in the room all the same.
    absent: as for `Room`.
    """

    def __init__(self, function: Callable[..., Any], absent: bool = False) -> None:
        self._function, self._absent = function, absent
        self._inputs: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self.output: Any = None
        """Of the latest call. On a GPU the next call overwrites it."""

    def __call__(self, *inputs: Tensor) -> Any:
        """What the function gives. Shapes, types and device must be those of the first call."""
        if not self._inputs:
            self._prepare(inputs)
        else:
            for mine, given in zip(self._inputs, inputs, strict=True):
                mine.copy_(given)
        if self._graph is None:
            self.output = self._run()
        else:
            self._graph.replay()
        return self.output

    def check(self) -> None:
        """Look whether all calls since the last check had room; waits for the device.

        Raises: NoRoom: they had not, and what they gave means nothing.
        """
        if self._inputs and not self._room.held():
            raise NoRoom

    def _prepare(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [given.clone() for given in inputs]
        device = inputs[0].device
        self._room = Room(device, absent=self._absent)
        self._run()  # finds how many voxels there are
        self._room = Room(device, self._room.enough(), self._absent)
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._graph = self._record()

    def _record(self) -> torch.cuda.CUDAGraph:
        # Kernels are compiled, and libraries get ready, in a run that is not recorded, on a stream of its own.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.output = self._run()
        return graph

    def _run(self) -> Any:
        with within(self._room):
            return self._function(*self._inputs)
