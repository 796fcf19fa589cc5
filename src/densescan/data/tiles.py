"""A map of any length on the disk: square tiles of the ground plane, read where they are needed."""

import json
import tokenize
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int

from densescan.data.maps import VOXEL_SIZE, ground_truth_crop
from densescan.errors import InputError
from densescan.files import atomic_write
from densescan.geometry.voxels import voxel_coordinates

TILE_VOXELS = 250
"""Edge of a tile in voxels: 25 m."""
CACHED_TILES = 40
"""Tiles kept in memory, 2 MB each in a street; a crop of 50 m needs about 25."""
INDEX = "index.json"
"""Written last: a map that has it is complete."""

_SLACK = 0.01
"""By so much a point may lie outside its tile through rounding, and much more [m]."""

Tile = tuple[int, int]
"""Place of a tile in the grid, x and y."""


def split_by_tile(keys: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], dict[Tile, tuple[int, int]]]:
    """Sort voxels by the tile they lie in, otherwise leaving their order.

    Args: keys: as `densescan.geometry.voxels.voxel_keys` gives them.
    Returns: order: indices that sort the keys. Where each tile begins and ends in that order.
    """
    tile = voxel_coordinates(keys)[:, :2] // TILE_VOXELS
    order = np.lexsort((tile[:, 1], tile[:, 0]))
    tiles, starts = np.unique(tile[order], axis=0, return_index=True)
    ends = np.append(starts, len(keys)).tolist()
    return order, {(x, y): (ends[i], ends[i + 1]) for i, (x, y) in enumerate(tiles.tolist())}


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a NumPy array, whole or not at all."""
    with atomic_write(path) as temporary:
        np.save(temporary, array)


def write_index(folder: Path, tiles: dict[Tile, int], voxel_size: float = VOXEL_SIZE) -> None:
    """Complete a map.

    Args: folder: holds the tiles. tiles: points of each. voxel_size: edge of the map's voxels [m].
    """
    counts = {f"{x}_{y}": tiles[x, y] for x, y in sorted(tiles)}
    index = {"voxel_size": voxel_size, "tile_size": TILE_VOXELS * voxel_size, "points": counts}
    with atomic_write(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def tile_path(folder: Path, tile: Tile) -> Path:
    """File of a tile: its points (P, 3) float64 [m], world frame."""
    return folder / f"{tile[0]}_{tile[1]}.npy"


class TileMap:
    """A map in a folder. Memory and time of a crop do not grow with the map's length.

    Raises: InputError: no complete map in the folder; reading raises it for a damaged or missing tile.
    """

    def __init__(self, folder: str | Path) -> None:
        """Args: folder: as `densescan data prepare` writes it."""
        self.folder = Path(folder)
        index = _read_index(self.folder / INDEX)
        self.tile_size = float(index["tile_size"])
        self.voxel_size = float(index["voxel_size"])
        self.tiles: dict[Tile, int] = {}
        for name, count in index["points"].items():
            x, _, y = name.partition("_")
            self.tiles[int(x), int(y)] = count
        self._cache: OrderedDict[Tile, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        """Number of points."""
        return sum(self.tiles.values())

    def __iter__(self) -> Iterator[Float64[np.ndarray, "P 3"]]:
        """The points [m], world frame, tile by tile."""
        return (self._read(tile) for tile in self.tiles)

    def near(self, centre: Float[np.ndarray, "3"], radius: float) -> Float64[np.ndarray, "P 3"]:
        """The points [m], world frame, of all tiles that come within a distance of a place; some lie farther away.

        Args: centre: place [m]. radius: horizontal distance [m].
        """
        found = [self._read_cached(tile) for tile in self._tiles_near(centre[:2], radius + _SLACK)]
        return np.concatenate(found) if found else np.zeros((0, 3))

    def within(self, centre: Float[np.ndarray, "3"], radius: float) -> Float64[np.ndarray, "P 3"]:
        """The points [m], world frame, within a distance of a place. Nothing is kept in memory: for places here and
        there, where `near` is for one after the other.

        Args: centre: place [m]. radius: horizontal distance [m].
        """
        found = [np.zeros((0, 3))]
        for tile in self._tiles_near(centre[:2], radius + _SLACK):
            points = self._read(tile, mapped=True)
            found.append(points[np.linalg.norm(points[:, :2] - centre[:2], axis=1) <= radius + _SLACK])
        return np.concatenate(found)

    def crop(
        self,
        T_world_lidar: Float[np.ndarray, "4 4"],
        scan_points: Float[np.ndarray, "N 3"],
        max_range: float = 50.0,
    ) -> Float64[np.ndarray, "M 3"]:
        """The ground truth of a scan; see `densescan.data.maps.ground_truth_crop`, which it equals."""
        world = self.near(T_world_lidar[:3, 3], max_range)
        return ground_truth_crop(world, T_world_lidar, scan_points, max_range)

    def _tiles_near(self, centre: np.ndarray, radius: float) -> Iterator[Tile]:
        low, high = (
            np.floor((np.stack([centre - radius, centre + radius])) / self.tile_size).astype(int).tolist()
        )
        for x in range(low[0], high[0] + 1):
            for y in range(low[1], high[1] + 1):
                corner = np.array([x, y]) * self.tile_size
                nearest = np.clip(centre, corner, corner + self.tile_size)
                if (x, y) in self.tiles and np.linalg.norm(nearest - centre) <= radius:
                    yield x, y

    def _read_cached(self, tile: Tile) -> np.ndarray:
        if tile not in self._cache:
            self._cache[tile] = self._read(tile)
            if len(self._cache) > CACHED_TILES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(tile)
        return self._cache[tile]

    def _read(self, tile: Tile, mapped: bool = False) -> np.ndarray:
        path = tile_path(self.folder, tile)
        points = read_array(path, mapped)
        if points.shape != (self.tiles[tile], 3) or points.dtype != np.float64:
            raise InputError(
                f"cannot read {path}: expected {self.tiles[tile]} points in float64, got {points.shape} in "
                f"{points.dtype}; remove the folder {self.folder.parent} and prepare it again"
            )
        return points


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """A NumPy array of a file.

    Args: mapped: only what is looked at is read from the disk.
    Raises: InputError: it is missing, cut off or something else.
    """
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, tokenize.TokenError) as error:
        raise InputError(
            f"cannot read {path}: it is missing, no NumPy array or cut off; prepare the data set again"
        ) from error


def _read_index(path: Path) -> dict:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {name: index[name] for name in ("voxel_size", "tile_size", "points")}
    except FileNotFoundError as error:
        raise InputError(
            f"there is no map in {path.parent}: expected {path.name}; make one with `densescan data prepare`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read {path}: it is no index of a map; prepare the data set again"
        ) from error
