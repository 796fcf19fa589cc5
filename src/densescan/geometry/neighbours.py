"""Nearest neighbours between two clouds."""

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial import cKDTree

from densescan.errors import InputError


def nearest_distances(
    a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"], workers: int = 1
) -> Float64[np.ndarray, " N"]:
    """Distance from each point of a to the nearest point of b [m], by a k-d tree; not squared.

    Args: a, b: coordinates [m], one frame for both. workers: threads; -1 takes all cores.
    Raises: InputError: b is empty, or a point is not finite.
    """
    if len(b) == 0:
        raise InputError(
            "expected at least one point to measure distances to, got none: check the crop of the cloud"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("expected finite points, got NaN or infinite ones: drop them first")
    # Sliding midpoints instead of medians: faster to build on LiDAR points, and as fast to query.
    tree = cKDTree(b, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(a, workers=workers)
    return distances
