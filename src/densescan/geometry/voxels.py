"""Voxel thinning: at most one point in each cell of a regular grid."""

import numpy as np
from jaxtyping import Float, Int

from densescan.errors import InputError

_BITS = 21
"""Bits of each axis in a packed voxel key: three times 21 fit an int64."""

_HALF = 1 << (_BITS - 1)


def voxel_keys(points: Float[np.ndarray, "N 3"], voxel_size: float) -> Int[np.ndarray, " N"]:
    """Pack the voxel coordinates floor(p / voxel_size) of each point into one int64, x in the highest bits.

    Args: points: coordinates [m], any frame. voxel_size: edge length of a voxel [m].
    Raises: InputError: a voxel size that is not positive, or a point that is not finite or lies more than 2^20 voxels
        from the origin.
    """
    if not voxel_size > 0:
        raise InputError(f"expected a voxel size above 0 m, got {voxel_size}: give the edge length in metres")
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    key = np.zeros(len(points), dtype=np.int64)
    for axis in range(3):
        cell = np.floor(points[:, axis] / np.float64(voxel_size))
        if not (cell.min() >= -_HALF and cell.max() < _HALF):
            raise InputError(
                f"expected finite points within {_HALF * voxel_size:g} m of the origin, got an axis from "
                f"{points[:, axis].min()} to {points[:, axis].max()} m: move the cloud to a local frame"
            )
        key = (key << _BITS) | (cell.astype(np.int64) + _HALF)
    return key


def voxel_coordinates(keys: Int[np.ndarray, " N"]) -> Int[np.ndarray, "N 3"]:
    """The voxel coordinates floor(p / voxel_size) that `voxel_keys` packed, x, y and z."""
    return np.stack([((keys >> shift) & (2 * _HALF - 1)) - _HALF for shift in (2 * _BITS, _BITS, 0)], axis=1)


def distinct(keys: Int[np.ndarray, " N"]) -> Int[np.ndarray, " V"]:
    """Every key once, ascending. As `numpy.unique`, which takes many times as long where it hashes (NumPy 2.3): asked
    for counts too, it sorts."""
    return np.unique(keys, return_counts=True)[0]


def voxel_downsample(points: Float[np.ndarray, "N 3"], voxel_size: float) -> Int[np.ndarray, " V"]:
    """Indices of the first point of each occupied voxel, in the order of the points.

    Args: points: coordinates [m], any frame. voxel_size: edge length of a voxel [m].
    Raises: InputError: see `voxel_keys`.
    Deviation: the released code keeps an arbitrary point of each voxel; the first one makes the result repeatable.
    """
    _, first = np.unique(voxel_keys(points, voxel_size), return_index=True)
    return np.sort(first)
