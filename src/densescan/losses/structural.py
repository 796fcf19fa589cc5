"""ScoreLiDAR's structural loss: the scene as a whole, and the distances between its key points."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from densescan.errors import InputError
from densescan.losses.neighbours import nearest_rows

RELEASED_SCENE_WEIGHT, RELEASED_POINT_WEIGHT = 0.5, 0.01
"""Weights of the two terms beside the distillation loss in the release's configuration."""

RELEASED_NEIGHBOURS = 180
"""Neighbours from which the release tells the curvature at a point."""


class StructuralLoss(NamedTuple):
    """The loss and its two terms [m^2]."""

    total: Float[Tensor, ""]
    scene_wise: Float[Tensor, ""]
    point_wise: Float[Tensor, ""]


def structural_loss(
    x_0: Float[Tensor, "M D"],
    truth: Float[Tensor, "L D"],
    key_points: Int64[Tensor, " K"],
    scene_weight: float = RELEASED_SCENE_WEIGHT,
    point_weight: float = RELEASED_POINT_WEIGHT,
) -> StructuralLoss:
    """scene_weight * scene_wise + point_weight * point_wise, for one scene; differentiable in `x_0`.

    scene_wise: mean squared distance to the nearest neighbour, the mean of both directions. point_wise: every key point
    of the truth has its nearest neighbour in the scene for a partner; mean squared difference between the distances of
    two key points and of their partners, over all pairs. Neighbours are those of `nearest_rows`, held fixed. The loss
    depends on the order of neither cloud, and is 0 where the scene is the truth.

    Args: x_0: the student's scene [m]. truth: true points [m], same frame. key_points: rows of `truth`, from
        `high_curvature_points`.
    Raises: InputError: an empty cloud, or fewer than two key points. FloatingPointError: x_0 is not finite.
    Source: ScoreLiDAR (Zhang et al., ICCV 2025).   Deviation: correspondence. The release compares row i of the scene
        with row i of the truth in both terms, though neither cloud has an order; `structural_loss_by_row` renders it.
    """
    _check(x_0, truth, key_points)
    to_scene = nearest_rows(truth, x_0)
    gap_truth = (truth - x_0[to_scene]).square().sum(1).mean()
    gap_scene = (x_0 - truth[nearest_rows(x_0, truth)]).square().sum(1).mean()
    partners = x_0[to_scene[key_points]]
    point_wise = (torch.pdist(partners) - torch.pdist(truth[key_points])).square().mean()
    scene_wise = (gap_truth + gap_scene) / 2
    return StructuralLoss(scene_weight * scene_wise + point_weight * point_wise, scene_wise, point_wise)


def structural_loss_by_row(
    x_0: Float[Tensor, "M D"],
    truth: Float[Tensor, "L D"],
    key_points: Int64[Tensor, " K"],
    scene_weight: float = RELEASED_SCENE_WEIGHT,
    point_weight: float = RELEASED_POINT_WEIGHT,
) -> StructuralLoss:
    """The released form: row i of the scene belongs to row i of the truth, whatever lies there.

    It means something only where the rows do correspond. For unordered clouds its minimum is every point at the mean
    of the truth.

    Args, Raises: as `structural_loss`; InputError also for clouds of different sizes.
    Source: the release of ScoreLiDAR.   Deviation: the distances between key points are averaged over pairs, without
        the zeros of each point with itself.
    """
    _check(x_0, truth, key_points)
    if len(x_0) != len(truth):
        raise InputError(f"expected clouds of one size, got {len(x_0)} and {len(truth)} points: draw as many")
    scene_wise = (x_0 - truth).square().mean()
    distances, distances_truth = torch.pdist(x_0[key_points]), torch.pdist(truth[key_points])
    point_wise = (distances - distances_truth).square().mean()
    return StructuralLoss(scene_weight * scene_wise + point_weight * point_wise, scene_wise, point_wise)


def high_curvature_points(
    truth: Float[Tensor, "L D"],
    generator: torch.Generator,
    share: float = 0.1,
    kept: float = 1 / 3,
    neighbours: int = RELEASED_NEIGHBOURS,
) -> Int64[Tensor, " K"]:
    """Rows of the key points: of a random share of the truth, those where the surface bends most; the sharpest first.

    The measure is the share of the smallest eigenvalue in the covariance of a point's neighbours among those looked
    at: 0 on a plane, 1/3 (in 3-D) where points fill space evenly.

    Args: truth: true points [m]. generator: of the random share. share: of the points that are looked at. kept: of
        those that become key points. neighbours: at most as many as there are other points; fewer look at finer detail.
    Raises: InputError: a share outside (0, 1], fewer than D neighbours, or less than two key points.
    Source: ScoreLiDAR; surface variation, Pauly et al., 2002.   Deviation: none; the defaults are the release's, made
        for 180,000 points within 50 m.
    """
    if not (0 < share <= 1 and 0 < kept <= 1 and neighbours >= truth.shape[1]):
        raise InputError(
            f"expected share and kept in (0, 1] and at least {truth.shape[1]} neighbours, got {share}, {kept} and "
            f"{neighbours}: the release uses 0.1, 1/3 and {RELEASED_NEIGHBOURS}"
        )
    n_looked_at = int(len(truth) * share)
    n_kept = int(n_looked_at * kept)
    if n_kept < 2:
        raise InputError(
            f"expected at least two key points, got {n_kept} of {len(truth)} points: raise share or kept"
        )
    rows = torch.randperm(len(truth), generator=generator)[:n_looked_at]
    points = truth.detach().cpu()[rows].numpy().astype(np.float64)
    sharpest = np.argsort(-_surface_variation(points, min(neighbours, n_looked_at - 1)), kind="stable")
    return rows[torch.from_numpy(sharpest[:n_kept])].to(truth.device)


def _surface_variation(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Smallest eigenvalue by their sum, of the covariance of each point's nearest others."""
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    around = points[tree.query(points, neighbours + 1)[1][:, 1:]]
    centred = around - around.mean(axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(centred.transpose(0, 2, 1) @ centred)
    total = eigenvalues.sum(axis=1)
    return np.divide(eigenvalues[:, 0], total, out=np.zeros_like(total), where=total > 0)


def _check(x_0: Tensor, truth: Tensor, key_points: Tensor) -> None:
    if len(x_0) == 0 or len(truth) == 0 or len(key_points) < 2:
        raise InputError(
            f"expected points and at least two key points, got a scene of {len(x_0)}, a truth of {len(truth)} and "
            f"{len(key_points)} key points: use larger crops"
        )
    if not torch.isfinite(x_0).all():
        raise FloatingPointError("the scene holds points that are not finite: train with a lower lr")
