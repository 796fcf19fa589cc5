"""Room for voxels: numbers of rows that are the same for every scene, for kernels that are recorded once and replayed.

As long as a room is entered, a level has as many rows as there is room for. Rows beyond its voxels hold keys from
`FIRST_FREE` on; they are nobody's neighbours and nobody reads their features, so that the others are those of a level
of its exact size, to the bit. What the host would look at (are all coordinates in range, do the voxels fit) the room
notes on the device.
"""

import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from densescan.sparse.keys import AXIS_BITS, MAX_BATCH

LEVELS = 5
"""Levels of the networks."""
NO_VOXEL = torch.iinfo(torch.int64).max
"""Fills rows that no voxel takes."""
FIRST_FREE = MAX_BATCH << 3 * AXIS_BITS
"""Keys from here on are of no voxel, at any level."""
ABSENT = -1
"""Batch index of points that fill no voxel; allowed within a room alone."""

_MARGIN, _STEP = 1.5, 1024  # a room is larger than what was found by this factor, in steps of so many rows

_entered: ContextVar["Room | None"] = ContextVar("densescan_room", default=None)


class Room:
    """How many rows each level has, and whether that was enough.

    sizes: of the levels, from the finest on; no level has more rows than there are points. None: as many as it needs
        and one to spare, for which the host waits.
    absent: whether points may be `ABSENT`; otherwise they are not valid. limits: the sizes, on the device.
    """

    def __init__(
        self, device: torch.device | str, sizes: Sequence[int] | None = None, absent: bool = False
    ) -> None:
        self.absent = absent
        self.kept: dict[Hashable, Tensor] = {}
        """What launches within the room read, but the host wrote."""
        self.sizes = tuple(sizes or [])
        self.limits: Int[Tensor, " L"] = torch.tensor(self.sizes or [sys.maxsize] * LEVELS, device=device)
        self._most = torch.zeros(LEVELS, dtype=torch.int64, device=device)
        self._valid = torch.ones((), dtype=torch.bool, device=device)

    def note(self, counts: Int[Tensor, " L"], valid: Bool[Tensor, ""]) -> None:
        """counts: voxels of each level of a scene; valid: its points are there, and in range."""
        torch.maximum(self._most, counts, out=self._most)
        self._valid.logical_and_(valid)

    def held(self) -> Bool[Tensor, ""]:
        """Whether every scene since the last question was valid and had room."""
        held = self._valid & (self._most <= self.limits).all()
        self._valid.fill_(True)
        return held

    def enough(self) -> list[int]:
        """Sizes for scenes like the ones noted, of which the coarser levels may be half as large again; the finest has
        room for a voxel a point, always."""
        coarser = [int(-(-max(1, most) * _MARGIN // _STEP)) * _STEP for most in self._most.tolist()[1:]]
        return [sys.maxsize, *coarser]


@contextmanager
def within(room: Room) -> Iterator[None]:
    """Voxels are made within a room; in this thread alone."""
    token = _entered.set(room)
    try:
        yield
    finally:
        _entered.reset(token)


def current() -> Room | None:
    """The room that was entered."""
    return _entered.get()
