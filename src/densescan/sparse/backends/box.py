"""Boxes of voxels, in which every voxel of every level has a place of its own: a number to sort by."""

from collections.abc import Sequence
from typing import NamedTuple

from densescan.sparse.keys import MAX_BATCH, MAX_COORD

LEVELS = 5
"""Levels of the networks."""
SHORT = 1 << 32
"""Places that 32 bits tell apart: a radix sort of them takes half as many passes as one of 64 bits."""
_LEAST_GROWTH = 1.1  # of the sides of a box that is worth having
_ROUNDED_UP = 0.98  # leaves room for the sites that coarser levels have at the rims


class Box(NamedTuple):
    """Whole coordinates of the finest level, from `low` on, and numbers of clouds, from 0 on."""

    low: tuple[int, int, int]
    size: tuple[int, int, int]
    clouds: int

    @property
    def places(self) -> int:
        """Of the voxels of all levels, and on each level one for points that fill none."""
        total = 0
        for i in range(LEVELS):
            of_level = self.clouds
            for low, size in zip(self.low, self.size, strict=True):
                of_level *= ((low + size - 1) >> i) - (low >> i) + 1
            total += of_level + 1
        return total


EVERYWHERE = Box((-MAX_COORD,) * 3, (2 * MAX_COORD + 1,) * 3, MAX_BATCH)
"""All that keys can hold."""


def box_about(low: Sequence[int], high: Sequence[int], clouds: int) -> Box:
    """The largest box of that form whose places 32 bits tell apart; where its sides are hardly longer, `EVERYWHERE`."""
    found = _between(low, high, clouds)
    if min(found.size) < 1:
        return EVERYWHERE
    growth = _ROUNDED_UP * (SHORT / found.places) ** (1 / 3)
    if growth < _LEAST_GROWTH:
        return EVERYWHERE
    margins = [int((growth - 1) / 2 * n) for n in found.size]
    box = _between(
        [max(-MAX_COORD, x - margin) for x, margin in zip(low, margins, strict=True)],
        [min(MAX_COORD, x + margin) for x, margin in zip(high, margins, strict=True)],
        clouds,
    )
    return box if box.places <= SHORT else EVERYWHERE


def _between(low: Sequence[int], high: Sequence[int], clouds: int) -> Box:
    (x, y, z), (x_high, y_high, z_high) = low, high
    return Box((x, y, z), (x_high - x + 1, y_high - y + 1, z_high - z + 1), clouds)
