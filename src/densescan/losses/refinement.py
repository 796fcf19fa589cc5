"""The refiner's loss: the Chamfer distance between moved points and the true surface."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densescan.errors import InputError
from densescan.losses.neighbours import nearest_rows

_SMALLEST_DISTANCE = 1e-4  # m; keeps the gradient of the distance finite where two points coincide


class ChamferLoss(NamedTuple):
    """The loss and its two directions [m]."""

    total: Float[Tensor, ""]
    scene_to_truth: Float[Tensor, ""]
    truth_to_scene: Float[Tensor, ""]


def chamfer_loss(
    scene: Float[Tensor, "L 3"],
    truth: Float[Tensor, "M 3"],
    scene_counts: Bool[Tensor, " L"] | None = None,
    truth_counts: Bool[Tensor, " M"] | None = None,
) -> ChamferLoss:
    """Mean of the two directed mean nearest-neighbour distances (not squared) [m], differentiable in `scene`.

    The pairs are those of `nearest_rows`, held fixed, as is usual; the gradient is that of the distances. A distance
    below 0.1 mm counts as 0.1 mm and has no gradient.

    Args: scene, truth: points [m], one frame. scene_counts, truth_counts: points whose own distance enters the loss;
        the others serve as neighbours only, which keeps the border of a crop from being punished for what was cut
        away. None: all.
    Raises: InputError: no point of the scene or of the truth counts. FloatingPointError: a point of the scene is not
        finite.
    Source: the loss of LiDiff's refiner.   Deviation: LiDiff squares the distances and adds the two directions; this
        is the Chamfer distance that is evaluated.
    """
    if not torch.isfinite(scene).all():
        raise FloatingPointError("the scene holds points that are not finite: train with a lower lr")
    _check_counts("scene", scene, scene_counts)
    _check_counts("truth", truth, truth_counts)
    to_truth = _distances(scene, truth, nearest_rows(scene, truth), scene_counts)
    to_scene = _distances(truth, scene, nearest_rows(truth, scene), truth_counts)
    return ChamferLoss((to_truth + to_scene) / 2, to_truth, to_scene)


def _check_counts(name: str, points: Tensor, counts: Tensor | None) -> None:
    if len(points) == 0 or (counts is not None and not counts.any()):
        raise InputError(
            f"expected points of the {name} that count, got none of {len(points)}: use larger crops"
        )


def _distances(queries: Tensor, targets: Tensor, rows: Tensor, counts: Tensor | None) -> Tensor:
    squared = (queries - targets[rows]).square().sum(1)
    distances = squared.clamp_min(_SMALLEST_DISTANCE**2).sqrt()
    return distances.mean() if counts is None else distances[counts].mean()
