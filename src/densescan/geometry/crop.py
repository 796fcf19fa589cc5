"""Which points count: the range of the scan that is completed, and the clean-up of what was sampled."""

from jaxtyping import Bool, Float
from torch import Tensor


def within_range(points: Float[Tensor, "N 3"], min_range: float, max_range: float) -> Bool[Tensor, " N"]:
    """Whether each point lies strictly between two distances from the sensor.

    Args: points: coordinates [m], sensor frame. min_range, max_range: distances [m]; the releases use 3.5 and 50.
    Deviation: the released code lets the remission of KITTI scans enter the distance.
    """
    distance = points.square().sum(dim=-1).sqrt()
    return (distance < max_range) & (distance > min_range)


def clean_scene(
    points: Float[Tensor, "M 3"], x_init: Float[Tensor, "S 3"], max_range: float
) -> Bool[Tensor, " M"]:
    """Whether each sampled point is kept: within range, below the scan's highest point, above mean(z) - 2 std(z).

    Both heights come from the points that sampling started from (the scan, reduced and repeated), not from the scene;
    std is the sample's, with the divisor S - 1.

    Args: points: the sampled scene [m], sensor frame. x_init: the start of sampling before noise [m], sensor frame.
        max_range: distance [m]; the releases use 50.
    Source: method of the LiDiff release, after sampling and before refinement.   Deviation: none.
    """
    start = x_init[:, 2]
    z_max = start.max()
    z_min = start.mean() - 2.0 * start.std()
    z = points[:, 2]
    return (points.square().sum(dim=-1).sqrt() < max_range) & (z < z_max) & (z > z_min)
