"""Two weighted sets of points on nested grids: from a few large cells down to the points themselves."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from densescan.geometry.voxels import distinct

_MOST_HALVINGS = 20
"""Cells of 2^-20 of the clouds' extent separate all points that matter."""

_POINTS_A_CELL = 2
"""Points that a cell of the finest grid holds on average, at least."""


class Side(NamedTuple):
    """One of the two sets at one level: cells at their centres of mass, or the points."""

    points: Float64[np.ndarray, "V 3"]
    """Coordinates [m]."""
    mass: Float64[np.ndarray, " V"]
    """Whole numbers above 0."""
    parent: Int64[np.ndarray, " V"]
    """Row of the cell at the next coarser level that holds each; 0 at the coarsest."""


class Level(NamedTuple):
    """Both sets at one level."""

    left: Side
    right: Side
    size: float
    """Edge of a cell, or the distance between points [m]."""


def nested_levels(
    x: Float64[np.ndarray, "V 3"],
    a: Float64[np.ndarray, " V"],
    y: Float64[np.ndarray, "W 3"],
    b: Float64[np.ndarray, " W"],
    most_pairs: int,
) -> list[Level]:
    """Levels from the coarsest, which has at most so many pairs of cells, to the sets themselves.

    Args: x, y: points [m], one frame. a, b: their masses. most_pairs: at least 1.
    """
    corner = np.minimum(x.min(axis=0), y.min(axis=0))
    edge = float((np.maximum(x.max(axis=0), y.max(axis=0)) - corner).max())
    halvings = _halvings(x, y, corner, edge) if edge > 0 and len(x) * len(y) > most_pairs else 0
    size = edge / 2 ** (halvings + 1)
    left, right, levels = (x, a), (y, b), []
    while halvings > 0 and len(left[0]) * len(right[0]) > most_pairs:
        coarse_left, parent_left = _gather(*left, _cells(left[0], corner, edge, halvings))
        coarse_right, parent_right = _gather(*right, _cells(right[0], corner, edge, halvings))
        levels.append(Level(Side(*left, parent_left), Side(*right, parent_right), size))
        left, right, size, halvings = coarse_left, coarse_right, 2 * size, halvings - 1
    none = [np.zeros(len(points), np.int64) for points, _ in (left, right)]
    levels.append(Level(Side(*left, none[0]), Side(*right, none[1]), size))
    return levels[::-1]


def _halvings(x: np.ndarray, y: np.ndarray, corner: np.ndarray, edge: float) -> int:
    """How often to halve the extent so that a cell holds several points."""
    for halvings in range(2, _MOST_HALVINGS):
        cells = sum(len(distinct(_cells(points, corner, edge, halvings))) for points in (x, y))
        if _POINTS_A_CELL * cells > len(x) + len(y):
            return halvings - 1
    return _MOST_HALVINGS


def _cells(points: np.ndarray, corner: np.ndarray, edge: float, halvings: int) -> np.ndarray:
    """One number a point for the cell of a grid of 2^halvings cells an axis."""
    n = 1 << halvings
    cell = np.minimum(((points - corner) * (n / edge)).astype(np.int64), n - 1)
    return np.asarray((cell[:, 0] * n + cell[:, 1]) * n + cell[:, 2])


def _gather(
    points: np.ndarray, mass: np.ndarray, cells: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Centres of mass and masses of the occupied cells, and the row of the cell that each point lies in."""
    _, parent = np.unique(cells, return_inverse=True)
    total = np.bincount(parent, mass)
    centres = np.column_stack([np.bincount(parent, mass * axis) / total for axis in points.T])
    return (centres, total), parent.astype(np.int64)
