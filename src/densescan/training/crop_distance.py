"""The Chamfer distance of a scene to the truth of its crop."""

from contextlib import suppress

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densescan.data.dataset import Crop
from densescan.errors import InputError
from densescan.losses.refinement import ChamferLoss, chamfer_loss
from densescan.training.batch import Batch


def within(points: Float[Tensor, "M 3"], batch: Batch) -> Bool[Tensor, " M"]:
    """Which points lie within the crop's radius. batch: of one crop."""
    return (points[:, :2] - batch.crop.centre[0]).norm(dim=1) < batch.crop.radius[0]


def chamfer_in_crop(
    scene: Float[Tensor, "L 3"], batch: Batch, scene_counts: Bool[Tensor, " L"] | None = None
) -> ChamferLoss:
    """The Chamfer distance of the points that count [m]; the others are neighbours alone.

    Args: scene: points [m], in the frame of the crop. batch: of one crop, whose truth counts within its radius.
        scene_counts: None: those within the radius.
    Raises: InputError: none counts.
    """
    crop = Crop(*(part[0] for part in batch.crop))
    counts = within(scene.detach(), batch) if scene_counts is None else scene_counts
    return chamfer_loss(scene, crop.truth, counts, within(crop.truth, batch))


def mean_chamfer(x_0: Float[Tensor, "B M 3"], batch: Batch) -> tuple[Float[Tensor, ""], float]:
    """The mean Chamfer distance of the crops' scenes [m], and the share of crops left out, which count as zero: nothing
    of the scene or of the truth lies within them."""
    found: list[Tensor] = []
    for scene, one in zip(x_0, batch.singly(), strict=True):
        with suppress(InputError):  # counted by the share
            found.append(chamfer_in_crop(scene, one).total)
    total = torch.stack(found).sum() if found else x_0.sum() * 0.0
    return total / len(x_0), 1 - len(found) / len(x_0)


def figures(distance: ChamferLoss, prefix: str = "") -> dict[str, float]:
    """The distance and its two directions by name [m]."""
    return {
        f"{prefix}cd": distance.total.item(),
        f"{prefix}scene_to_truth": distance.scene_to_truth.item(),
        f"{prefix}truth_to_scene": distance.truth_to_scene.item(),
    }
