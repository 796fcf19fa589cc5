"""Jensen-Shannon divergence: do both clouds spread their points over space alike?"""

import numpy as np
from jaxtyping import Float

from densescan.errors import InputError
from densescan.geometry.voxels import distinct
from densescan.metrics.base import Metric
from densescan.metrics.grid import cell_counts, cells_per_axis

VOXEL_SIZE = 0.5
"""Edge of a histogram bin [m]."""


def jsd(pred: Float[np.ndarray, "N 3"], truth: Float[np.ndarray, "M 3"], bev: bool) -> float:
    """Square root of the Jensen-Shannon divergence of two histograms, natural logarithm: 0 to sqrt(ln 2) = 0.833.

    Bins are cubes of 0.5 m within +-50 m, points outside are dropped. The 3-D form counts points; the bird's-eye view
    counts, for each column of cubes, those that are occupied.

    Args: pred, truth: points [m], sensor frame. bev: bird's-eye view (the paper's tables) instead of 3-D.
    Raises: InputError: a cloud without points within +-50 m, or a point that is not finite.
    Source: LiDiff's evaluation protocol.   Deviation: none; only occupied bins are stored.
    """
    (bins_pred, count_pred), (bins_truth, count_truth) = (_histogram(points, bev) for points in (pred, truth))
    if len(bins_pred) == 0 or len(bins_truth) == 0:
        raise InputError(
            "expected points within +-50 m in both clouds, got a cloud without: check frame and unit"
        )
    occupied = distinct(np.concatenate([bins_pred, bins_truth]))
    p, q = np.zeros((2, len(occupied)))
    p[np.searchsorted(occupied, bins_pred)] = count_pred / count_pred.sum()
    q[np.searchsorted(occupied, bins_truth)] = count_truth / count_truth.sum()
    mixture = 0.5 * (p + q)
    divergence = 0.5 * (_relative_entropy(p, mixture) + _relative_entropy(q, mixture))
    return float(np.sqrt(max(divergence, 0.0)))


def _histogram(points: np.ndarray, bev: bool) -> tuple[np.ndarray, np.ndarray]:
    """The occupied bins and their counts."""
    cubes, counts = cell_counts(points, VOXEL_SIZE)
    return np.unique(cubes // cells_per_axis(VOXEL_SIZE), return_counts=True) if bev else (cubes, counts)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    """Sum of p ln(p / q) over the bins with p > 0, where q > 0 as well."""
    support = p > 0
    return float((p[support] * np.log(p[support] / q[support])).sum())


class JensenShannon3D(Metric):
    """Running JSD over cubes."""

    name = "JSD 3D"
    unit = ""
    higher_is_better = False
    reference = "LiDiff's evaluation: scipy's jensenshannon of 0.5 m bins within +-50 m"

    def measure(self, pred: Float[np.ndarray, "N 3"], truth: Float[np.ndarray, "M 3"]) -> float:
        """3-D JSD of one sample."""
        return jsd(pred, truth, bev=False)


class JensenShannonBEV(Metric):
    """Running JSD over the bird's-eye view: the JSD of the paper's tables."""

    name = "JSD BEV"
    unit = ""
    higher_is_better = False
    reference = "LiDiff's evaluation, Table 1: scipy's jensenshannon of the columns of 0.5 m bins"

    def measure(self, pred: Float[np.ndarray, "N 3"], truth: Float[np.ndarray, "M 3"]) -> float:
        """Bird's-eye-view JSD of one sample."""
        return jsd(pred, truth, bev=True)
