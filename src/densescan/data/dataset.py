"""Training crops: a piece of a scan and the true surface around it, from a data set or from simulated streets.

The whole scene does not fit a small machine's training step, and need not: a crop holds the scan's points nearest to a
random centre and the truth within their reach.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.utils.data import Dataset

from densescan.data.augment import Augmentation, random_scale, random_tilt, random_turn, reach_before
from densescan.data.frames import FolderFrames, FrameSource
from densescan.data.maps import Z_RANGE
from densescan.data.scan import Scan
from densescan.data.truth import Truth
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

    Raises: InputError: counts below 1, limits in the wrong order, a margin below 1.
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
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How the crop is changed at random."""

    def __post_init__(self) -> None:
        rules = {
            "scan_points and truth_points of at least 1": min(self.scan_points, self.truth_points) >= 1,
            "a margin of at least 1": self.margin >= 1,
            "a truth_margin of at least 0": self.truth_margin >= 0,
            "1 <= min_reduced <= max_reduced": 1 <= self.min_reduced <= self.max_reduced,
            "0 <= min_range < max_range": 0 <= self.min_range < self.max_range,
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


class _Frame(NamedTuple):
    """What is kept of a frame."""

    scan: Float[Tensor, "S 3"]
    """In the order of farthest point sampling: its first n points are the sample of size n."""
    truth: Truth


class CropDataset(Dataset[Crop]):
    """Random crops of frames; crop i is the same whenever and by whomever it is drawn.

    Args: source: the frames, or a folder that `densescan data prepare` or `densescan data simulate` wrote. seed: of all
        crops. length: how many a loader should draw; crop i does not depend on it.
    Raises: InputError: see `FolderFrames`. Drawing raises it for a damaged file, and where no crop with truth in it can
        be found.
    """

    def __init__(self, source: FrameSource | str | Path, config: CropConfig, seed: int, length: int) -> None:
        self.source = source if isinstance(source, FrameSource) else FolderFrames(source)
        self.config, self.seed, self.length = config, seed, length
        self._kept: dict[int, tuple[int, list[_Frame]]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Crop:
        """Crop i, which depends on (seed, i) and the frames alone. One without truth, as of moving objects alone, is
        drawn again."""
        for draw in range(MAX_DRAWS):
            crop = self._draw(i, np.random.default_rng([self.seed, i, draw]))
            if crop is not None:
                return crop
        raise InputError(
            f"{self.source.name}: none of {MAX_DRAWS} crops has truth in it: "
            "give each scan its ground truth in the same frame, the sensor's, in metres"
        )

    def _draw(self, i: int, rng: np.random.Generator) -> Crop | None:
        c = self.config
        frame = self._frame(i, rng)
        n_reduced = int(rng.integers(c.min_reduced, c.max_reduced + 1))
        reduced = frame.scan[:n_reduced].numpy()
        middle = reduced[rng.integers(len(reduced))]
        tilt = random_tilt(rng, c.augmentation)
        scan, centre = reduced @ tilt, (middle @ tilt)[:2]
        distance = np.linalg.norm(scan[:, :2] - centre, axis=1)
        order = np.argsort(distance, kind="stable")[: int(c.margin * c.scan_points)]
        radius = float(distance[order[min(c.scan_points, len(order)) - 1]])
        truth, reach = _truth_near(frame.truth, middle, tilt, radius + c.truth_margin)
        if len(truth) == 0:
            return None
        drawn = np.sort(rng.choice(len(truth), c.truth_points, replace=len(truth) < c.truth_points))
        if not (reach[drawn] < radius).any():
            return None
        order = np.resize(order, int(c.margin * c.scan_points))  # a scan with fewer points repeats them
        turn, scale = random_turn(rng, c.augmentation), random_scale(rng, c.augmentation)
        return Crop(
            torch.from_numpy(scan[order] @ turn * np.float32(scale)),
            torch.from_numpy(truth[drawn] @ turn * np.float32(scale)),
            torch.from_numpy(centre @ turn[:2, :2] * np.float32(scale)),
            torch.tensor(radius * scale),
        )

    def _frame(self, i: int, rng: np.random.Generator) -> _Frame:
        """The frame for crop i, from memory if it is there."""
        choice = self.source.choose(i, self.seed, rng)
        group, frames = self._kept.get(choice.slot, (None, []))
        if group != choice.group:
            read = self.source.read(choice, self.seed)
            frames = [_Frame(self._reduce(scan, truth.name), truth) for scan, truth in read]
            self._kept.pop(choice.slot, None)
            self._kept[choice.slot] = choice.group, frames
            if len(self._kept) > CACHED_FRAMES:
                del self._kept[next(iter(self._kept))]
        return frames[choice.place]

    def _reduce(self, scan: Scan, name: str) -> Float32[Tensor, "S 3"]:
        """A scan in the order of farthest point sampling; `name` stands for it where it is no file."""
        c = self.config
        points = torch.from_numpy(scan.points)
        points = points[within_range(points, c.min_range, c.max_range)]
        if not len(points):
            raise InputError(
                f"{scan.path or name} holds no point between {c.min_range:g} and {c.max_range:g} m from the sensor: "
                "remove the frame, or change min_range and max_range"
            )
        return points[_farthest_first(points, c.max_reduced)]


def _truth_near(
    truth: Truth, middle: Float32[np.ndarray, "3"], tilt: Float32[np.ndarray, "3 3"], reach: float
) -> tuple[Float32[np.ndarray, "M 3"], Float32[np.ndarray, " M"]]:
    """The tilted truth within a horizontal distance of the tilted middle, and the distances [m]."""
    rise = float(np.abs(middle[2] - np.array(Z_RANGE)).max())
    before = reach_before(tilt, reach, rise)
    points = truth.near(middle[:2], before)
    points = points[np.linalg.norm(points[:, :2] - middle[:2], axis=1) < before]
    if not np.isfinite(points).all():
        raise InputError(f"{truth.name} holds points that are not finite: prepare the data set again")
    points = points @ tilt
    distance = np.linalg.norm(points[:, :2] - (middle @ tilt)[:2], axis=1)
    return points[distance < reach], distance[distance < reach]


def _farthest_first(points: Float[Tensor, "N 3"], n: int) -> Tensor:
    """Indices of the first n points by farthest point sampling; in that order even where the cloud has no more."""
    if n < len(points) or len(points) == 1:
        return farthest_point_sampling(points, n)
    chosen = farthest_point_sampling(points, len(points) - 1)
    left = torch.ones(len(points), dtype=torch.bool)
    left[chosen] = False
    return torch.cat((chosen, left.nonzero().squeeze(1)))
