"""Sharpness of a map: how few voxels hold the structure that all scans saw, against the same scans left unregistered.

Poses that fit put what many scans saw of a wall into the same voxels; without poses it smears along the drive.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from densescan.geometry.voxels import distinct

MIN_RANGE, MAX_RANGE = 3.0, 30.0
"""Structure is judged between these distances from the sensor [m]."""
MIN_HEIGHT = -1.2
"""Structure is judged above this height, sensor frame [m]: the ground fills its voxels under any poses."""


@dataclass(frozen=True)
class Sharpness:
    """Structure points of all scans together, moving things included, and the voxels that they fill."""

    points: int
    """Points of structure."""
    voxels: int
    """Voxels that they fill, put together by the poses."""
    identity_voxels: int
    """Voxels that they fill with identity poses."""

    @property
    def points_per_voxel(self) -> float:
        """Higher is sharper; no structure: 0."""
        return self.points / max(self.voxels, 1)

    @property
    def ratio(self) -> float:
        """How many times sharper than with identity poses; no structure: 1."""
        return self.identity_voxels / self.voxels if self.voxels else 1.0


def structure(points: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, " N"]:
    """Which points of a scan [m], sensor frame, the sharpness is judged by."""
    distance = np.linalg.norm(points.astype(np.float64), axis=1)
    return (distance > MIN_RANGE) & (distance < MAX_RANGE) & (points[:, 2] > MIN_HEIGHT)


class OccupiedVoxels:
    """The voxels that many clouds fill together. Memory is a few times that of the result."""

    def __init__(self) -> None:
        self._known = np.zeros(0, dtype=np.int64)
        self._waiting: list[np.ndarray] = []

    def add(self, keys: Int[np.ndarray, " N"]) -> None:
        """The voxels of one more cloud, as `densescan.geometry.voxels.voxel_keys` gives them."""
        self._waiting.append(distinct(keys))
        if sum(map(len, self._waiting)) > len(self._known):
            self._merge()

    def keys(self) -> Int[np.ndarray, " V"]:
        """All voxels once, sorted."""
        self._merge()
        return self._known

    def _merge(self) -> None:
        self._known, self._waiting = distinct(np.concatenate([self._known, *self._waiting])), []
