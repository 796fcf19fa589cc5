"""Preference pairs: two samples of each crop from two noises, and which of them a metric prefers within the crop."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densescan.diffusion.samplers.interface import EpsFn
from densescan.errors import InputError
from densescan.metrics.base import Metric
from densescan.metrics.chamfer import ChamferDistance
from densescan.metrics.emd import EarthMovers
from densescan.metrics.iou import VoxelIoU
from densescan.metrics.jsd import JensenShannon3D, JensenShannonBEV
from densescan.metrics.nearest import nearest_distances_on
from densescan.preference import LAMS, paired_starts, rank
from densescan.training.batch import Batch
from densescan.training.student import LastStepSampler, Sample, replay

MetricName = Literal["cd", "jsd", "jsd-bev", "emd", "iou"]
IOU_VOXEL_SIZE = 0.2
"""Edge of the voxels by whose IoU pairs are ranked [m]: the middle one of the published tables."""


@dataclass(frozen=True)
class PairConfig:
    """How pairs are made and ranked.

    Raises: InputError: an unknown metric, scales that are not positive, or a pair of equal starts.
    """

    metric: MetricName = "cd"
    """What tells winner from loser. `jsd` counts points in cubes, as the release ranks; `jsd-bev` is the JSD of the
    paper's tables, which rewards mere spread. `emd` takes half a second a pair, the others a tenth at most."""
    lams: tuple[float, float] = LAMS
    """Noise scales of the two starts [m] (Eq. 19)."""
    same_noise: bool = False
    """Both starts share one noise, as released; by default each has its own, as the paper says, or the larger noise
    would nearly always lose."""

    def __post_init__(self) -> None:
        if self.metric not in get_args(MetricName):
            raise InputError(f"unknown metric {self.metric!r}: known are {', '.join(get_args(MetricName))}")
        if min(self.lams) <= 0 or (self.same_noise and self.lams[0] == self.lams[1]):
            raise InputError(
                f"expected lams above 0, and different ones for the same noise, got {self.lams} with "
                f"same_noise={self.same_noise}: the paper has 1.0 and 1.1"
            )


def paired_samples(
    sampler: LastStepSampler,
    eps_fn: EpsFn,
    x_init: Float[Tensor, "B M 3"],
    batch: Batch,
    steps: int,
    config: PairConfig,
) -> tuple[Sample, Sample]:
    """Two samples of each crop, from the two starts of Eq. 19; with the same noise, they share that of later steps."""
    draws = batch.draws
    starts = paired_starts(x_init, draws.noise("start"), same_noise=config.same_noise, lams=config.lams)
    first = sampler.sample(eps_fn, x_init, starts[0], steps, draws.noise("sampling"))
    noise = replay(first.noises) if config.same_noise else draws.noise("sampling")
    return first, sampler.sample(eps_fn, x_init, starts[1], steps, noise)


class Ranking(NamedTuple):
    """Which sample of each crop is the better one."""

    first_wins: Bool[Tensor, " B"]
    """The sample of the first noise scale is the winner; without meaning for a crop that is left out."""
    kept: Bool[Tensor, " B"]
    """False: a tie, or the metric failed; the crop is left out of what needs a pair."""
    figures: dict[str, float]
    """Means over all crops, in which those left out count as zero."""

    @property
    def share(self) -> float:
        """Of the crops that are kept."""
        return self.kept.float().mean().item()

    def winners(self, first: Tensor, second: Tensor) -> Tensor:
        """The better one of each crop."""
        return torch.where(self.first_wins[:, None, None], first, second)

    def losers(self, first: Tensor, second: Tensor) -> Tensor:
        """The worse one of each crop."""
        return self.winners(second, first)


@dataclass
class _Tally:
    """What the crops of a batch say, one after the other."""

    first_wins: list[bool] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    rows: list[tuple[float, float, float]] = field(default_factory=list)
    """Values of winner and loser, and the margin between them, of kept pairs."""
    failures: int = 0

    def ranking(self, metric: MetricName, device: torch.device) -> Ranking:
        """The tensors and the figures."""
        n, kept = len(self.kept), sum(self.kept)
        winner, loser, margin = np.sum(self.rows, axis=0) / n if self.rows else (0.0, 0.0, 0.0)
        lower_lam = sum(w for w, k in zip(self.first_wins, self.kept, strict=True) if k)
        figures = {
            f"{metric}_w": float(winner),
            f"{metric}_l": float(loser),
            "margin": float(margin),
            "first_wins": lower_lam / n,
            "pairs/ties": (n - kept - self.failures) / n,
            "pairs/failures": self.failures / n,
        }
        first_wins, kept_rows = (torch.tensor(flags, device=device) for flags in (self.first_wins, self.kept))
        return Ranking(first_wins, kept_rows, figures)


def rank_pairs(
    batch: Batch, first: Float[Tensor, "B M 3"], second: Float[Tensor, "B M 3"], metric: MetricName
) -> Ranking:
    """Which sample of each crop is nearer to its truth, measured within the crop's radius.

    A pair is left out where it is a tie or the metric fails on it (no point within the radius, say). The figures have
    the metric's values of winner and loser, the margin, how often the first sample wins, and the shares of pairs left
    out.
    """
    tally = _Tally()
    for one, *pair in zip(batch.singly(), _arrays(first), _arrays(second), strict=True):
        truth, centre = (part[0].cpu().numpy() for part in (one.crop.truth, one.crop.centre))
        crop = Disc(centre, one.crop.radius[0].item())
        try:
            ranked = rank(*_seen_by(metric, pair, truth, crop), _metric(metric, crop, first.device))
        except InputError:  # the metric has no value for this pair: it is counted, and left out
            tally.failures += 1
            tally.first_wins.append(True)
            tally.kept.append(False)
            continue
        tally.first_wins.append(ranked.winner == 0)
        tally.kept.append(not ranked.is_tie)
        if not ranked.is_tie:
            tally.rows.append((ranked.values[ranked.winner], ranked.values[ranked.loser], ranked.margin))
    return tally.ranking(metric, first.device)


class Disc(NamedTuple):
    """The part of the ground plane that a crop covers."""

    centre: Float[np.ndarray, "2"]
    radius: float

    def holds(self, points: Float[np.ndarray, "M 3"]) -> Bool[np.ndarray, " M"]:
        """Which points lie over it."""
        return np.linalg.norm(points[:, :2] - self.centre, axis=1) < self.radius


class ChamferInCrop(ChamferDistance):
    """Chamfer distance of the points within a crop; those beyond its radius serve as neighbours alone, so that its
    edge does not decide."""

    def __init__(self, crop: Disc, device: str | torch.device = "cpu") -> None:
        super().__init__(workers=-1)
        self.crop, self.device = crop, device

    def measure(self, pred: Float[np.ndarray, "N 3"], truth: Float[np.ndarray, "M 3"]) -> float:
        """Half the sum of the two directed mean distances [m].

        Raises: InputError: a cloud without points within the crop, or with points that are not finite.
        """
        inside, true_inside = pred[self.crop.holds(pred)], truth[self.crop.holds(truth)]
        if len(inside) == 0 or len(true_inside) == 0:
            raise InputError(
                f"expected points within the crop, got {len(inside)} predicted and {len(true_inside)} true ones"
            )
        to_truth = nearest_distances_on(self.device, inside, truth, self.workers).mean()
        to_pred = nearest_distances_on(self.device, true_inside, pred, self.workers).mean()
        return float(to_truth + to_pred) / 2


def _metric(name: MetricName, crop: Disc, device: torch.device) -> Metric:
    match name:
        case "cd":
            return ChamferInCrop(crop, device)
        case "jsd":
            return JensenShannon3D()
        case "jsd-bev":
            return JensenShannonBEV()
        case "emd":
            return EarthMovers()
        case "iou":
            return VoxelIoU(IOU_VOXEL_SIZE)


def _seen_by(
    name: MetricName, pair: Sequence[np.ndarray], truth: np.ndarray, crop: Disc
) -> tuple[list[np.ndarray], np.ndarray]:
    """The clouds as the metric sees them: whole, or cut to the crop where it knows no neighbours beyond."""
    if name == "cd":
        return list(pair), truth
    return [scene[crop.holds(scene)] for scene in pair], truth[crop.holds(truth)]


def _arrays(clouds: Float[Tensor, "B M 3"]) -> list[np.ndarray]:
    return list(clouds.detach().float().cpu().numpy())
