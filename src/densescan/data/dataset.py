"""Training crops: a piece of a scan and the true surface around it, from a prepared data set.

The whole scene does not fit a small machine's training step, and need not: a crop holds the scan's points nearest to a
random centre and the truth within their reach.
"""

import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.utils.data import Dataset

from densescan.data.io import read_scan
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling

MAX_DRAWS = 100
"""Crops without any truth that are drawn in a row before the data set is called unusable."""

CACHED_FRAMES = 2_000
"""Reduced scans that are kept in memory by each process, about 0.2 MB each."""


@dataclass(frozen=True)
class CropConfig:
    """What is cut from a frame for one training sample.

    Raises: InputError: counts below 1, limits in the wrong order, a margin or a scale below 1.
    """

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

    def __post_init__(self) -> None:
        rules = {
            "scan_points and truth_points of at least 1": min(self.scan_points, self.truth_points) >= 1,
            "a margin of at least 1": self.margin >= 1,
            "a truth_margin of at least 0": self.truth_margin >= 0,
            "1 <= min_reduced <= max_reduced": 1 <= self.min_reduced <= self.max_reduced,
            "0 <= min_range < max_range": 0 <= self.min_range < self.max_range,
            "a max_scale of at least 1": self.max_scale >= 1,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise InputError(f"expected crops with {'; '.join(broken)}, got {self}: change these values")


class Crop(NamedTuple):
    """One training sample, or a batch of them, sensor frame after augmentation [m]."""

    scan: Float[Tensor, "*B N 3"]
    """Reduced scan, nearest point to the centre first; N = margin * scan_points."""
    truth: Float[Tensor, "*B M 3"]
    """True surface points; M = truth_points."""
    centre: Float[Tensor, "*B 2"]
    """Middle of the crop, in the ground plane."""
    radius: Float[Tensor, "*B"]
    """Horizontal reach of the crop."""


class CropDataset(Dataset[Crop]):
    """Random crops of the frames under a folder; crop i is the same whenever and by whomever it is drawn.

    Args: folder: holds `sequences/*/velodyne/*.bin` and, beside each velodyne folder, `truth/*.npy` in the sensor
        frame, as `densescan data simulate` writes them. seed: of all crops. length: how many a loader should draw;
        crop i does not depend on it.
    Raises: InputError: no frame found, or a frame without truth. Drawing raises it for a damaged file, and where no
        crop with truth in it can be found.
    """

    def __init__(self, folder: str | Path, config: CropConfig, seed: int, length: int) -> None:
        self.folder, self.config, self.seed, self.length = folder, config, seed, length
        self.scans = sorted(Path(folder).glob("sequences/*/velodyne/*.bin"))
        if not self.scans:
            raise InputError(
                f"{folder} holds no sequences/*/velodyne/*.bin: "
                f"make training data with `densescan data simulate {folder}`"
            )
        self.truths = [p.parent.parent / "truth" / f"{p.stem}.npy" for p in self.scans]
        for path in self.truths:
            if not path.is_file():
                raise InputError(
                    f"{path} is missing: every scan needs its ground truth, prepare the data set again"
                )
        self._reduced: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Crop:
        """Crop i, which depends on (seed, i) and the files alone. One without truth, as of moving objects alone, is
        drawn again."""
        for draw in range(MAX_DRAWS):
            crop = self._draw(np.random.default_rng([self.seed, i, draw]))
            if crop is not None:
                return crop
        raise InputError(
            f"{self.folder}: none of {MAX_DRAWS} crops has truth in it: "
            "give each scan its ground truth in the same frame, the sensor's, in metres"
        )

    def _draw(self, rng: np.random.Generator) -> Crop | None:
        c = self.config
        frame = int(rng.integers(len(self.scans)))
        n_reduced = int(rng.integers(c.min_reduced, c.max_reduced + 1))
        scan, truth = self._scan(frame)[:n_reduced].numpy(), _open_truth(self.truths[frame])
        centre = scan[rng.integers(len(scan)), :2]
        distance = np.linalg.norm(scan[:, :2] - centre, axis=1)
        order = np.argsort(distance, kind="stable")[: int(c.margin * c.scan_points)]
        radius = float(distance[order[min(c.scan_points, len(order)) - 1]])
        reach = np.linalg.norm(truth[:, :2] - centre, axis=1)
        near = np.flatnonzero(reach < radius + c.truth_margin)
        drawn = (
            np.sort(rng.choice(near, c.truth_points, replace=len(near) < c.truth_points))
            if len(near)
            else near
        )
        if not (reach[drawn] < radius).any():
            return None
        true_points = truth[drawn]
        if not np.isfinite(true_points).all():
            raise InputError(
                f"{self.truths[frame]} holds points that are not finite: prepare the data set again"
            )
        order = np.resize(order, int(c.margin * c.scan_points))  # a scan with fewer points repeats them
        turn, scale = _random_turn(rng), float(c.max_scale ** rng.uniform(-1, 1))
        return Crop(
            torch.from_numpy(scan[order] @ turn * np.float32(scale)),
            torch.from_numpy(true_points @ turn * np.float32(scale)),
            torch.from_numpy(centre @ turn[:2, :2] * np.float32(scale)),
            torch.tensor(radius * scale),
        )

    def _scan(self, frame: int) -> Tensor:
        """The frame's scan in the order of farthest point sampling: its first n points are the sample of size n."""
        if frame in self._reduced:
            return self._reduced[frame]
        c = self.config
        points = torch.from_numpy(read_scan(self.scans[frame]).points)
        points = points[within_range(points, c.min_range, c.max_range)]
        if not len(points):
            raise InputError(
                f"{self.scans[frame]} holds no point between {c.min_range:g} and {c.max_range:g} m from the sensor: "
                "remove the frame, or change min_range and max_range"
            )
        reduced = points[_farthest_first(points, c.max_reduced)]
        if len(self._reduced) < CACHED_FRAMES:
            self._reduced[frame] = reduced
        return reduced


def _farthest_first(points: Float[Tensor, "N 3"], n: int) -> Tensor:
    """Indices of the first n points by farthest point sampling; in that order even where the cloud has no more."""
    if n < len(points) or len(points) == 1:
        return farthest_point_sampling(points, n)
    chosen = farthest_point_sampling(points, len(points) - 1)
    left = torch.ones(len(points), dtype=torch.bool)
    left[chosen] = False
    return torch.cat((chosen, left.nonzero().squeeze(1)))


def _open_truth(path: Path) -> Float32[np.ndarray, "M 3"]:
    """Ground truth [m], sensor frame, mapped into memory: only what is looked at is read."""
    try:
        truth = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError, tokenize.TokenError) as error:
        raise InputError(
            f"cannot read {path}: it is no NumPy array or cut off; prepare the data set again"
        ) from error
    if truth.ndim != 2 or truth.shape[1] != 3 or truth.dtype != np.float32:
        raise InputError(
            f"cannot read {path}: expected points of shape (N, 3) in float32, got {truth.shape} in {truth.dtype}; "
            "prepare the data set again"
        )
    return truth


def _random_turn(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """A rotation about the vertical axis, mirrored every other time (row vectors: p @ turn)."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.eye(3, dtype=np.float32)
    turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    if rng.random() < 0.5:
        turn[1] *= -1
    return turn
