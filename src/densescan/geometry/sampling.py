"""Farthest point sampling: the subset of a cloud that covers it evenly."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from densescan.errors import InputError

try:
    from torch_quickfps import sample_idx as _sample_by_tree
except (ImportError, OSError):  # no build for this platform, or one made for a newer PyTorch
    _sample_by_tree = None

_LEAF_POINTS = 1000
"""Points a leaf of the search tree should hold: the fastest of the sizes tried on scans of 120,000 points."""

_MAX_TREE_HEIGHT = 8


def farthest_point_sampling(points: Float[Tensor, "N 3"], n: int, start: int = 0) -> Int64[Tensor, " K"]:
    """Indices of n points in order of selection, each the farthest from all that were selected before it.

    Runs on the CPU, whatever the device of the points. A completer on a GPU selects by `sparse.backends.farthest`,
    which differs in the order of equally far points alone. Copies of one point are selected in the order of their
    indices, and only when all distinct points are used up.

    Args: points: coordinates [m], any frame, rounded to float32. n: number of points wanted; all N points, in their
        own order, where the cloud has no more. start: index of the first point.
    Raises: InputError: n below 1, start outside the cloud, or a point that is not finite.
    Deviation: the released code (Open3D) scans all points for each selection, and takes the first of equally far
        points. The search tree selects the same points, but distinct points at exactly the same distance in its own
        order: about 5 times in 18,000 selections of a real scan. Where no search tree can be imported, all
        points are scanned.
    """
    if n < 1 or not 0 <= start < max(len(points), 1):
        raise InputError(f"expected n >= 1 and start below {len(points)}, got n = {n} and start = {start}")
    cloud = points.detach().to("cpu", torch.float32).contiguous()
    if not bool(torch.isfinite(cloud).all()):
        raise InputError("expected finite points, got NaN or infinite ones: drop them first")
    if n >= len(cloud):
        return torch.arange(len(cloud), device=points.device)
    distinct = _distinct(cloud.numpy(), start)
    first = int(np.searchsorted(distinct, start))
    wanted = min(n, len(distinct))
    select = _select_by_scan if _sample_by_tree is None else _select_by_tree
    chosen = distinct[select(cloud[torch.from_numpy(distinct)], wanted, first)]
    copies = np.delete(np.arange(len(cloud)), distinct)[: n - wanted]
    return torch.from_numpy(np.concatenate([chosen, copies])).to(points.device)


def _distinct(points: np.ndarray, start: int) -> np.ndarray:
    """Ascending indices of one of each group of equal points: the start, otherwise the first."""
    suspects = _equal_in_plane(points)
    order = suspects[np.lexsort(points[suspects].T)]
    first = np.ones(len(order), bool)
    first[1:] = (points[order[1:]] != points[order[:-1]]).any(axis=1)
    chosen = order[first]
    chosen[(np.cumsum(first) - 1)[order == start]] = start
    return np.delete(np.arange(len(points)), np.setdiff1d(order, chosen))


def _equal_in_plane(points: np.ndarray) -> np.ndarray:
    """Ascending indices of the points that share x and y with another; few do, so that one key sorts out the others."""
    x, y = (points[:, :2] + 0.0).T.astype(np.float32).view(np.int32).astype(np.int64)  # + 0.0 makes -0 a 0
    keys = (x << 32) | (y & 0xFFFFFFFF)
    ordered = np.sort(keys)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.flatnonzero(np.isin(keys, shared)) if len(shared) else np.zeros(0, np.int64)


def _select_by_tree(points: Tensor, n: int, start: int) -> np.ndarray:
    """Selection by a search tree that skips the leaves too near to matter."""
    height = min(max((len(points) // _LEAF_POINTS).bit_length(), 1), _MAX_TREE_HEIGHT)
    return _sample_by_tree(points, n, h=height, start_idx=start).numpy()


def _select_by_scan(points: Tensor, n: int, start: int) -> np.ndarray:
    """Selection by the definition: all points are looked at for each, and the first of the farthest is taken."""
    axes = points.numpy().T.copy()
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    chosen = np.empty(n, dtype=np.int64)
    latest = start
    for i in range(n):
        chosen[i] = latest
        x, y, z = axes - axes[:, latest, None]
        np.minimum(nearest, x * x + y * y + z * z, out=nearest)
        latest = int(nearest.argmax())
    return chosen
