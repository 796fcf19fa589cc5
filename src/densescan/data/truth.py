"""What is true near a place of a scan: all that a training crop needs, without cutting a whole scene."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from densescan.data.maps import Z_RANGE, crop_map, witnesses
from densescan.data.tiles import TileMap, read_array
from densescan.errors import InputError
from densescan.geometry.poses import transform


class Truth(ABC):
    """The ground truth of one scan, sensor frame [m]."""

    name: str
    """For messages: the file or frame."""

    @abstractmethod
    def near(self, centre: Float[np.ndarray, "2"], reach: float) -> Float32[np.ndarray, "M 3"]:
        """All points within a horizontal distance of a place, in a fixed order; there may be others among them.

        Args: centre: place in the ground plane [m]. reach: distance [m].
        Raises: InputError: a file is missing or damaged.
        """


class ArrayTruth(Truth):
    """Points in memory."""

    def __init__(self, name: str, points: Float32[np.ndarray, "M 3"]) -> None:
        self.name, self._points = name, points

    def near(self, centre: Float[np.ndarray, "2"], reach: float) -> Float32[np.ndarray, "M 3"]:
        return self._points


class FileTruth(Truth):
    """Points of a .npy file, float32, mapped into memory: only what is looked at is read."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def near(self, centre: Float[np.ndarray, "2"], reach: float) -> Float32[np.ndarray, "M 3"]:
        truth = read_array(self._path, mapped=True)
        if truth.ndim != 2 or truth.shape[1] != 3 or truth.dtype != np.float32:
            raise InputError(
                f"cannot read {self._path}: expected points of shape (N, 3) in float32, got {truth.shape} in "
                f"{truth.dtype}; prepare the data set again"
            )
        return truth


class MapTruth(Truth):
    """The part of a map that the released rule gives a scan, cut out of the few tiles near the place.

    Of the scan only what the rule asks for is kept, some hundred points, and of the map nothing.
    """

    def __init__(
        self,
        name: str,
        world: TileMap,
        T_world_lidar: Float[np.ndarray, "4 4"],
        scan_points: Float[np.ndarray, "N 3"],
    ) -> None:
        """Args: name: of the frame. world: the map. T_world_lidar: pose of the scan. scan_points: sensor frame [m]."""
        self.name, self._world, self._T_world_lidar = name, world, T_world_lidar
        self._witnesses = witnesses(scan_points)

    def near(self, centre: Float[np.ndarray, "2"], reach: float) -> Float32[np.ndarray, "M 3"]:
        middle = np.array([[centre[0], centre[1], np.mean(Z_RANGE)]])
        place = transform(self._T_world_lidar, middle)[0]
        farthest = np.hypot(reach, np.ptp(Z_RANGE) / 2)  # however the pose is inclined
        world = self._world.within(place, float(farthest))
        return crop_map(world, self._T_world_lidar, self._witnesses).astype(np.float32)
