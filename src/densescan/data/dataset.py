"""Training crops: a piece of a scan and the true surface around it, from a prepared data set.

The whole scene does not fit a small machine's training step, and need not: a crop holds the scan's points nearest to a
random centre and the truth within their reach.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from densescan.data.io import read_scan
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling


@dataclass(frozen=True)
class CropConfig:
    """What is cut from a frame for one training sample."""

    scan_points: int = 1000
    """Points of the reduced scan whose reach (the farthest of them) is the crop's radius."""
    margin: float = 1.5
    """Points of the scan that are given as condition, in multiples of `scan_points`: beyond the radius, too."""
    truth_points: int = 10_000
    """Points of the truth that are drawn within the radius (with repetition where there are fewer)."""
    truth_margin: float = 0.0
    """How far beyond the radius truth is drawn as well [m]."""
    min_reduced: int = 6_000
    """A frame's scan is reduced by farthest point sampling to at least this many points, at random, ..."""
    max_reduced: int = 18_000
    """... and at most this many."""
    max_range: float = 50.0
    """Points of the scan farther from the sensor are dropped [m]."""
    min_range: float = 3.5
    """Points of the scan nearer to the sensor are dropped [m]."""
    max_scale: float = 1.05
    """Scenes are scaled by a random factor between its inverse and this."""


class Crop(NamedTuple):
    """One training sample, sensor frame after augmentation [m]."""

    scan: Float[Tensor, "*B N 3"]
    """Reduced scan, nearest point to the centre first."""
    truth: Float[Tensor, "*B M 3"]
    """True surface points."""
    centre: Float[Tensor, "*B 2"]
    """Middle of the crop, in the ground plane."""
    radius: Float[Tensor, "*B"]
    """Horizontal reach of the crop."""


class CropDataset(Dataset[Crop]):
    """Endless crops of the frames under a folder; crop i is the same whenever and by whomever it is drawn.

    folder: holds `sequences/*/velodyne/*.bin` and, beside each, `truth/*.npy` in the sensor frame, as
    `densescan data simulate` writes them.
    Raises: InputError: no frame found, or a frame without truth.
    """

    def __init__(self, folder: str | Path, config: CropConfig, seed: int, length: int) -> None:
        self.config, self.seed, self.length = config, seed, length
        self.scans = sorted(Path(folder).glob("sequences/*/velodyne/*.bin"))
        if not self.scans:
            raise InputError(
                f"{folder} holds no sequences/*/velodyne/*.bin: make training data with `densescan data simulate {folder}`"
            )
        self.truths = [p.parent.parent / "truth" / f"{p.stem}.npy" for p in self.scans]
        for path in self.truths:
            if not path.is_file():
                raise InputError(f"{path} is missing: every scan needs its ground truth, prepare the data set again")
        self._reduced: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Crop:
        rng = np.random.default_rng([self.seed, i])
        frame = int(rng.integers(len(self.scans)))
        c = self.config
        n_reduced = int(rng.integers(c.min_reduced, c.max_reduced + 1))
        scan = self._scan(frame)[:n_reduced].numpy()
        truth = np.load(self.truths[frame], mmap_mode="r")
        centre = scan[rng.integers(len(scan)), :2]
        distance = np.linalg.norm(scan[:, :2] - centre, axis=1)
        order = np.argsort(distance)[: int(c.margin * c.scan_points)]
        radius = float(distance[order[min(c.scan_points, len(order)) - 1]])
        near = np.flatnonzero(np.linalg.norm(truth[:, :2] - centre, axis=1) < radius + c.truth_margin)
        if not len(near):  # a crop of moving objects alone: draw another
            return self[i + self.length]
        drawn = rng.choice(near, c.truth_points, replace=len(near) < c.truth_points)
        order = np.resize(order, int(c.margin * c.scan_points))  # a scan with fewer points repeats them
        turn, scale = _random_turn(rng), float(c.max_scale ** rng.uniform(-1, 1))
        return Crop(
            torch.from_numpy(scan[order] @ turn * np.float32(scale)),
            torch.from_numpy(truth[np.sort(drawn)] @ turn * np.float32(scale)),
            torch.from_numpy(centre @ turn[:2, :2] * np.float32(scale)),
            torch.tensor(radius * scale),
        )

    def _scan(self, frame: int) -> Tensor:
        """The frame's scan in the order of farthest point sampling: its first n points are the sample of size n."""
        if frame not in self._reduced:
            points = torch.from_numpy(read_scan(self.scans[frame]).points)
            points = points[within_range(points, self.config.min_range, self.config.max_range)]
            self._reduced[frame] = points[farthest_point_sampling(points, self.config.max_reduced)]
        return self._reduced[frame]


def _random_turn(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """A rotation about the vertical axis, mirrored every other time (row vectors: p @ turn)."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.eye(3, dtype=np.float32)
    turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    if rng.random() < 0.5:
        turn[1] *= -1
    return turn
