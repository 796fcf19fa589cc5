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

from densescan.sparse.backends.box import EVERYWHERE, LEVELS, Box, box_about
from densescan.sparse.keys import AXIS_BITS, MAX_BATCH, MAX_COORD

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
    absent: whether points may be `ABSENT`; otherwise they are not valid. box: outside it they are not valid either.
    limits: the sizes, on the device.
    """

    def __init__(
        self,
        device: torch.device | str,
        sizes: Sequence[int] | None = None,
        absent: bool = False,
        box: Box = EVERYWHERE,
    ) -> None:
        self.absent, self.box = absent, box
        self.kept: dict[Hashable, Tensor] = {}
        """What launches within the room read, but the host wrote."""
        self.sizes = tuple(sizes or [])
        self.limits: Int[Tensor, " L"] = torch.tensor(self.sizes or [sys.maxsize] * LEVELS, device=device)
        self._most = torch.zeros(LEVELS, dtype=torch.int64, device=device)
        self._valid = torch.ones((), dtype=torch.bool, device=device)
        self._reach = torch.tensor([[MAX_COORD] * 4, [-MAX_COORD] * 4], device=device)

    def note(self, counts: Int[Tensor, " L"], valid: Bool[Tensor, ""]) -> None:
        """counts: voxels of each level of a scene; valid: its points are there, and in range."""
        torch.maximum(self._most, counts, out=self._most)
        self._valid.logical_and_(valid)

    def held(self) -> Bool[Tensor, ""]:
        """Whether every scene since the last question was valid and had room."""
        held = self._valid & (self._most <= self.limits).all()
        self._valid.fill_(True)
        return held

    def note_reach(self, coords: Int[Tensor, "P 4"], fit: Bool[Tensor, " P"]) -> None:
        """coords: of the points of a scene, of which those that fit count."""
        lowest, highest = self._reach
        torch.minimum(lowest, torch.where(fit[:, None], coords, MAX_COORD).amin(0), out=self._reach[0])
        torch.maximum(highest, torch.where(fit[:, None], coords, -MAX_COORD).amax(0), out=self._reach[1])

    def enough(self, boxed: bool = True) -> "Room":
        """A room for scenes like the ones noted, whose coarser levels may have half as many rows again; the finest has
        room for a voxel a point, always. boxed: within a box as large as is fast."""
        coarser = [int(-(-max(1, most) * _MARGIN // _STEP)) * _STEP for most in self._most.tolist()[1:]]
        (_, *low), (last, *high) = self._reach.tolist()
        box = box_about(low, high, last + 1) if boxed else EVERYWHERE
        return Room(self.limits.device, [sys.maxsize, *coarser], self.absent, box)


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
