"""Ground truth of a completion: the map of many scans, and the part of it that one scan is compared with."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Float64

from densescan.errors import InputError
from densescan.geometry.poses import transform
from densescan.geometry.voxels import voxel_downsample, voxel_keys

VOXEL_SIZE = 0.1
"""Edge of the voxels of which a map keeps one point [m]."""
MIN_RANGE = 3.5
"""Nearer points, the vehicle itself, are no part of a map [m]."""
MAX_RANGE = 50.0
"""Ground truth of a scan ends at this distance [m]."""
Z_RANGE = (-4.0, 4.4)
"""Ground truth of a scan lies between these heights, sensor frame [m]."""
CELL = 10.0
"""Edge of the cells that a scan must occupy for ground truth to be kept in them [m]."""


class FirstPoints:
    """Points that arrive one cloud after the other, of which the first in each voxel is kept.

    Memory is a few times that of the result, however many clouds there are.
    """

    def __init__(self, voxel_size: float = VOXEL_SIZE) -> None:
        """Args: voxel_size: edge of a voxel [m]."""
        self._voxel_size = voxel_size
        self._first = np.zeros((0, 3))
        self._waiting: list[np.ndarray] = []

    def add(self, points: Float[np.ndarray, "N 3"]) -> None:
        """One more cloud [m], in the frame of the others.

        Raises: InputError: see `densescan.geometry.voxels.voxel_keys`.
        """
        self._waiting.append(self._thin([points]))
        if sum(map(len, self._waiting)) > len(
            self._first
        ):  # seldom, as the map grows: this is the costly part
            self._merge()

    def points(self) -> Float64[np.ndarray, "P 3"]:
        """The first point of each voxel [m], in the order of their arrival."""
        self._merge()
        return self._first

    def _merge(self) -> None:
        self._first, self._waiting = self._thin([self._first, *self._waiting]), []

    def _thin(self, clouds: list[np.ndarray]) -> np.ndarray:
        points = np.concatenate(clouds)
        return points[voxel_downsample(points, self._voxel_size)]


def accumulate(
    scans: Iterable[tuple[Float[np.ndarray, "_ 3"], Float[np.ndarray, "4 4"]]],
    voxel_size: float = VOXEL_SIZE,
    min_range: float = MIN_RANGE,
) -> Float64[np.ndarray, "P 3"]:
    """Put the scans of a sequence in one frame, one point a voxel: the first to fall in it.

    Moving things must be left out of the points by their labels beforehand, or they smear along their way.

    Args: scans: pairs of points [m] in the sensor frame and T_world_lidar. voxel_size: edge of a voxel [m].
        min_range: nearer points [m], the vehicle itself, are dropped.
    Returns: points [m], world frame.
    Raises: InputError: no point at all, a voxel size that is not positive, or a point that is not finite.
    Source: LiDiff's evaluation protocol.   Deviation: the release keeps an arbitrary point of each voxel.
    """
    thinned = FirstPoints(voxel_size)
    for points, T_world_lidar in scans:
        thinned.add(transform(T_world_lidar, beyond(points, min_range)))
    world = thinned.points()
    if len(world) == 0:
        raise InputError(
            f"expected scans with points beyond {min_range} m to make a map of, got none: check the scans"
        )
    return world


def beyond(points: Float[np.ndarray, "N 3"], min_range: float = MIN_RANGE) -> Float[np.ndarray, "M 3"]:
    """The points [m], sensor frame, that are farther from the sensor than a distance [m]."""
    return points[np.linalg.norm(points.astype(np.float64), axis=1) > min_range]


def ground_truth_crop(
    world_map: Float[np.ndarray, "P 3"],
    T_world_lidar: Float[np.ndarray, "4 4"],
    scan_points: Float[np.ndarray, "N 3"],
    max_range: float = MAX_RANGE,
    z_range: tuple[float, float] = Z_RANGE,
    cell: float = CELL,
) -> Float64[np.ndarray, "M 3"]:
    """The part of a map that a completion of one scan should hold.

    Kept are the points within range of the pose and between two heights, in those cells of a coarse grid that the scan
    itself has a point in: what the scan says nothing about is not asked for.

    Args: world_map: points [m], world frame. T_world_lidar: pose of the scan. scan_points: points [m], sensor frame.
        max_range: distance [m]. z_range: heights above the sensor [m]. cell: edge of a grid cell [m].
    Returns: points [m], sensor frame.
    Raises: InputError: an empty scan, or no point of the map is left.
    Source: LiDiff's evaluation protocol.   Deviation: none.
    """
    if len(scan_points) == 0:
        raise InputError("expected a scan with points to crop the map for, got none: check the scan")
    points = crop_map(world_map, T_world_lidar, scan_points, max_range, z_range, cell)
    if len(points) == 0:
        raise InputError(
            "no point of the map is near the scan: check that pose and map belong to one sequence"
        )
    return points


def crop_map(
    world_map: Float[np.ndarray, "P 3"],
    T_world_lidar: Float[np.ndarray, "4 4"],
    scan_points: Float[np.ndarray, "N 3"],
    max_range: float = MAX_RANGE,
    z_range: tuple[float, float] = Z_RANGE,
    cell: float = CELL,
) -> Float64[np.ndarray, "M 3"]:
    """The rule of `ground_truth_crop`, point by point, for a piece of a map: none may be left.

    Args: scan_points: not empty, or the `witnesses` of the scan.
    """
    near = world_map[np.linalg.norm(world_map - T_world_lidar[:3, 3], axis=1) < max_range]
    points = transform(np.linalg.inv(T_world_lidar), near)
    points = points[(points[:, 2] > z_range[0]) & (points[:, 2] < z_range[1])]
    return points[in_cells_of(points, scan_points, cell)]


def witnesses(scan_points: Float[np.ndarray, "N 3"], cell: float = CELL) -> Float[np.ndarray, "W 3"]:
    """A few points of a scan, not empty, that stand for all of it in `in_cells_of`: one a cell, and the outermost.

    Args: scan_points: any frame [m]. cell: edge of a grid cell [m].
    """
    _, first = np.unique(voxel_keys(scan_points - _origin(scan_points, cell), cell), return_index=True)
    return scan_points[np.union1d(first, scan_points.argmin(axis=0))]


def in_cells_of(
    points: Float[np.ndarray, "M 3"], scan_points: Float[np.ndarray, "N 3"], cell: float
) -> Bool[np.ndarray, " M"]:
    """Whether each point lies in a grid cell with a point of the scan; the grid begins half a cell below the scan.

    Args: points, scan_points: one frame [m], the scan not empty. cell: edge of a grid cell [m].
    """
    origin = _origin(scan_points, cell)
    return np.isin(voxel_keys(points - origin, cell), voxel_keys(scan_points - origin, cell))


def _origin(scan_points: np.ndarray, cell: float) -> np.ndarray:
    """Where the grid of cells begins."""
    return scan_points.min(axis=0).astype(np.float64) - cell / 2
