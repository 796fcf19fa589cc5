"""The cube of voxels, +-50 m around the sensor, over which JSD and IoU compare clouds."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from densescan.errors import InputError
from densescan.geometry.voxels import distinct

EXTENT = 50.0
"""Half the edge of the cube [m]."""

_BLOCK = 1 << 20
"""Points that are put into voxels together."""


def cells_per_axis(voxel_size: float) -> int:
    """Number of voxels along an edge of the cube.

    Raises: InputError: the edge is no whole number of voxels.
    """
    cells = round(2 * EXTENT / voxel_size) if voxel_size > 0 else 0
    if cells < 1 or abs(cells * voxel_size - 2 * EXTENT) > 1e-6:
        raise InputError(
            f"expected a voxel size that divides {2 * EXTENT:g} m, got {voxel_size}: choose 0.1, 0.2 or 0.5"
        )
    return cells


def cell_keys(points: Float[np.ndarray, "N 3"], voxel_size: float) -> Int64[np.ndarray, " P"]:
    """One number a point for the voxel it lies in: (x * n + y) * n + z with n voxels an axis.

    Points outside the cube are dropped; those on its far faces belong to the last voxel.

    Args: points: coordinates [m], sensor frame. voxel_size: edge of a voxel [m].
    Raises: InputError: a voxel size that does not divide the cube, or a point that is not finite.
    """
    n = cells_per_axis(voxel_size)
    if not np.isfinite(points).all():
        raise InputError("expected finite points, got NaN or infinite ones: drop them first")
    inside = points[(np.abs(points) <= EXTENT).all(axis=1)].astype(np.float64)
    x, y, z = (_cells(inside[:, axis], n) for axis in range(3))
    return (x * n + y) * n + z


def _cells(values: Float64[np.ndarray, " P"], n: int) -> Int64[np.ndarray, " P"]:
    """Which of the n cells each value lies in, exactly as `numpy.histogram` has it: the sum below is rounded, and may
    lift a value just under an edge onto it."""
    edges = np.linspace(-EXTENT, EXTENT, n + 1)
    cells = np.minimum(((values + EXTENT) * (n / (2 * EXTENT))).astype(np.int64), n - 1)
    cells -= values < edges[cells]
    return cells + ((values >= edges[cells + 1]) & (cells < n - 1))


def cell_counts(
    points: Float[np.ndarray, "N 3"], voxel_size: float
) -> tuple[Int64[np.ndarray, " V"], Int64[np.ndarray, " V"]]:
    """The occupied voxels in the order of `cell_keys`, and how many points each holds.

    Memory grows with the occupied voxels, not with the points: these are taken in blocks.

    Args: points: coordinates [m], sensor frame. voxel_size: edge of a voxel [m].
    Raises: InputError: see `cell_keys`.
    """
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for first in range(0, max(len(points), 1), _BLOCK):
        found, number = np.unique(cell_keys(points[first : first + _BLOCK], voxel_size), return_counts=True)
        keys, counts = _added(keys, counts, found, number)
    return keys, counts


def _added(
    keys: np.ndarray, counts: np.ndarray, more_keys: np.ndarray, more_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of counts by ascending key in one."""
    if len(keys) == 0:
        return more_keys, more_counts
    merged = distinct(np.concatenate([keys, more_keys]))
    total = np.zeros(len(merged), np.int64)
    total[np.searchsorted(merged, keys)] += counts
    total[np.searchsorted(merged, more_keys)] += more_counts
    return merged, total
