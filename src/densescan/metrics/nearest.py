"""Nearest distances between two clouds, on the device that has the time for it."""

import numpy as np
import torch
from jaxtyping import Float, Float64

from densescan.errors import InputError
from densescan.geometry.neighbours import nearest_distances
from densescan.sparse.backends import backend_of


def in_float32(device: str | torch.device) -> bool:
    """Whether nearest distances on the device are those of float32, by Triton; else k-d trees give them in float64."""
    return backend_of(torch.empty(0, device=device)) == "triton"


def nearest_distances_on(
    device: str | torch.device,
    a: Float[np.ndarray, "N 3"],
    b: Float[np.ndarray, "M 3"],
    workers: int = 1,
) -> Float64[np.ndarray, " N"]:
    """Distance from each point of a to the nearest point of b [m]; not squared.

    Args: device: see `in_float32`. a, b: coordinates [m], one frame for both. workers: threads of a k-d tree.
    Raises: InputError: b is empty, or a point is not finite.
    """
    if not in_float32(device) or len(b) == 0:
        return nearest_distances(a, b, workers)
    from densescan.sparse.backends.nearest import nearest_points

    queries, targets = (torch.tensor(points, dtype=torch.float32, device=device) for points in (a, b))
    distances = nearest_points(queries, targets)[0].double().cpu().numpy()
    if not np.isfinite(distances).all():
        raise InputError("expected finite points, got NaN or infinite ones: drop them first")
    return distances
