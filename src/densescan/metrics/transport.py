"""The cheapest way to carry one weighted set of points into another, with a proof of how cheap it can be at best.

The linear programme  min sum_ij P_ij |x_i - y_j|  has too many variables to be written down, but few of them matter.
It is solved on some of the pairs by the network simplex method; the potentials u, v of that solution tell which other
pairs would pay (|x_i - y_j| < u_i + v_j), these are added, and so on until none is left. The first pairs come from the
same problem on the cells of a coarse grid, refined level by level.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from densescan.errors import InputError
from densescan.geometry.voxels import distinct
from densescan.metrics.levels import Level, Side, nested_levels
from densescan.metrics.pricing import Pairs, best_responses, paying_pairs

_DENSE = 100_000
"""Problems of so few pairs are solved on all of them at once."""

_COARSE_GAP = 1e-2
"""Coarse plans are only starts: their cost may be off by this share of a cell."""

_TIGHTEST = 16
"""A finer problem starts with so many pairs of each row that come nearest to paying."""

_PER_ROW = 16
"""Paying pairs of a row that are added in one round."""

_MOST_STEPS = 1 << 62
"""Of the simplex method: it ends by itself."""

_OPTIMAL = 1
"""Its code for success."""


class Transport(NamedTuple):
    """What a plan costs, and what no plan can undercut."""

    cost: float
    """Mean distance that the mass travels by a plan that is feasible [m]."""
    gap: float
    """No plan costs less than cost - gap [m]."""


class _Plan(NamedTuple):
    """The optimum on some of the pairs."""

    used: Pairs
    """Pairs that carry mass."""
    mass: Float64[np.ndarray, " E"]
    """How much: whole numbers."""
    cost: float
    u: Float64[np.ndarray, " V"]
    """Potentials [m]: u_i + v_j <= |x_i - y_j| on these pairs, with equality where mass is carried."""
    v: Float64[np.ndarray, " W"]


def transport(
    x: Float64[np.ndarray, "V 3"],
    count_x: Int64[np.ndarray, " V"],
    y: Float64[np.ndarray, "W 3"],
    count_y: Int64[np.ndarray, " W"],
    gap: float,
) -> Transport:
    """Least mean distance over which the mass of one set is carried into the other, either mass counting as one.

    Args: x, y: points [m], one frame. count_x, count_y: weights, whole numbers above 0. gap: the cost may exceed the
        optimum by so much [m].
    Raises: InputError: a gap that is not positive.
    Source: network simplex method of POT, with columns generated.   Deviation: none.
    """
    if not gap > 0:
        raise InputError(f"expected a solver gap above 0 m, got {gap}: choose 1e-5")
    if len(x) < len(y):  # pairs are added by row: the larger set has the rows
        x, count_x, y, count_y = y, count_y, x, count_x
    shared = int(np.gcd(count_x.sum(), count_y.sum()))
    a = (count_x * (count_y.sum() // shared)).astype(
        np.float64
    )  # whole numbers: the simplex method does not round
    b = (count_y * (count_x.sum() // shared)).astype(np.float64)
    coarsest, *finer = nested_levels(x, a, y, b, _DENSE)
    plan, bound = _generate_columns(
        coarsest, *_first(coarsest), _COARSE_GAP * coarsest.size if finer else gap
    )
    for level in finer:
        start = _refined(plan, coarsest, level)
        allowed = gap if level is finer[-1] else _COARSE_GAP * level.size
        plan, bound = _generate_columns(level, *start, allowed)
        coarsest = level
    return Transport(plan.cost, max(plan.cost - bound, 0.0))


def _first(level: Level) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """All pairs, and potentials of zero."""
    i, j = np.indices((len(level.left.mass), len(level.right.mass)), dtype=np.int64)
    return (i.ravel(), j.ravel()), np.zeros(len(level.left.mass)), np.zeros(len(level.right.mass))


def _refined(plan: _Plan, coarse: Level, fine: Level) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Pairs to begin a finer level with, which allow a plan, and potentials, both from the coarser plan."""
    left, right = fine.left, fine.right
    v, _ = best_responses(right.points, coarse.left.points, plan.u, 1)
    u, tightest = best_responses(left.points, right.points, v, _TIGHTEST)
    return _union(_plan_of_children(plan, left, right), tightest, len(right.mass)), u, v


def _plan_of_children(plan: _Plan, left: Side, right: Side) -> Pairs:
    """Pairs that carry mass when each cell's share of a coarse plan is dealt out among its points in turn."""
    from_cell, to_cell = plan.used
    children, flows = np.argsort(left.parent, kind="stable"), np.lexsort((to_cell, from_cell))
    child, flow, mass = _overlaps(left.mass[children], plan.mass[flows])
    i, to_cell = children[child], to_cell[flows[flow]]
    children, shares = np.argsort(right.parent, kind="stable"), np.argsort(to_cell, kind="stable")
    child, share, _ = _overlaps(right.mass[children], mass[shares])
    return i[shares[share]], children[child]


def _overlaps(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two ways to cut a line into pieces: the pieces of both ways that overlap, and by how much."""
    ends_one, ends_other = np.cumsum(one), np.cumsum(other)
    ends = np.union1d(ends_one, ends_other)
    return np.searchsorted(ends_one, ends), np.searchsorted(ends_other, ends), np.diff(ends, prepend=0.0)


def _union(one: Pairs, other: Pairs, columns: int) -> Pairs:
    keys = distinct(np.concatenate([one[0] * columns + one[1], other[0] * columns + other[1]]))
    return keys // columns, keys % columns


def _generate_columns(
    level: Level, pairs: Pairs, u: np.ndarray, v: np.ndarray, gap: float
) -> tuple[_Plan, float]:
    """The optimum on all pairs, but for the gap, and what no plan undercuts; the given pairs must allow a plan."""
    left, right = level.left, level.right
    total, number = left.mass.sum(), len(right.mass)
    while True:
        plan = _simplex(level, pairs, u, v)
        u, v = plan.u, plan.v
        better, lowest = paying_pairs(left.points, right.points, u, v, gap / 2, _PER_ROW)
        bound = float(
            (left.mass @ u + right.mass @ (v + lowest)) / total
        )  # u and v + lowest never overcharge a pair
        if plan.cost - bound <= gap or len(better[0]) == 0:
            return plan, bound
        pairs = _union(pairs, better, number)


def _simplex(level: Level, pairs: Pairs, u: np.ndarray, v: np.ndarray) -> _Plan:
    """The optimum on these pairs by the network simplex method, started from potentials."""
    left, right = level.left, level.right
    i, j = pairs
    distances = np.linalg.norm(left.points[i] - right.points[j], axis=1)
    used_i, used_j, mass, cost, u, v, code = _solver()(
        left.mass, right.mass, i.astype(np.uint64), j.astype(np.uint64), distances, _MOST_STEPS, u, v
    )
    if code != _OPTIMAL:
        raise RuntimeError(f"the network simplex method ended with code {code} on {len(i)} pairs")
    middle = np.median(u)  # the potentials are free up to a constant: near zero they round least
    return _Plan(
        used=(used_i.astype(np.int64), used_j.astype(np.int64)),
        mass=mass,
        cost=max(float(cost / left.mass.sum()), 0.0),
        u=u - middle,
        v=v + middle,
    )


@cache
def _solver() -> Callable[..., Any]:
    """POT's sparse network simplex, imported on first use: the package is slow to import and compiles with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ot.lp.emd_wrap import emd_c_sparse
    return emd_c_sparse
