"""Farthest point sampling by Triton kernels: many points a round, and yet the selection of one point after the other.

The squared distance of a point is that to the nearest selected one. A point comes before another if its distance is
greater, or equal and its index lower; one after the other, always the first is selected. A point is safe if no point
that comes before it lies nearer to it than to the selected ones: selecting it would change none of their distances.

All safe points may be selected at once. Only points before a safe one can be selected until its turn, for distances
never grow. They are no nearer to it than to the selected ones, and so no nearer than those are to it: it is selected at
the distance that it has now. Nor does it matter that this is early: the points before it, other safe ones among them,
keep their distances, and the points after it had to wait for it. One after the other, distances at selection never
grow, and equal ones go by index: sorting the selected points by both gives the order of selection.

To know whether a point is safe, the points before it are enough. A round thus looks at the first few thousand points
alone, the candidates, the first of which is always safe. Scans of 120,000 points take 60 rounds to select 18,000.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from densescan.errors import InputError
from densescan.sparse.backends.launch import on_device_of
from densescan.sparse.backends.nearest import MAX_POINTS
from densescan.sparse.backends.recording import ALONE, recorded

_CANDIDATES = 2048  # of a round, at most: fewer make for more rounds, more for points that nobody wants
_ROUNDS = 16  # before the host looks whether they were enough
_BLOCK = 512  # points of a program that counts or gathers
_NEAR = (64, 32)  # points of a program that looks at new ones, and how many of those it looks at together
_SAFE = (16, 256)  # candidates of a program, and how many of those before them it looks at together
_TOGETHER = 256  # blocks whose counts a program adds up at a time
_LENGTHS = 8192  # memory and recording are made for multiples of so many points, and serve all clouds of less
_LEVELS = 64  # two for each power of two of 32-bit numbers
_FAR = torch.finfo(torch.float32).max  # squared distance while nothing is selected; the start's is infinite
_COMPILE = {"enable_fp_fusion": False}
"""Products and sums are rounded one by one, as on the CPU: otherwise, other points would be selected."""


@triton.jit
@no_type_check
def _squared(x, y, z, x_other, y_other, z_other):
    """Squared distances of points along the first axis of a tile to others along the second."""
    dx = x[:, None] - x_other[None, :]
    dy = y[:, None] - y_other[None, :]
    dz = z[:, None] - z_other[None, :]
    return dx * dx + dy * dy + dz * dz


@triton.jit
@no_type_check
def _level(squares, top, LEVELS: tl.constexpr):
    """How far below the greatest squared distance others are, roughly: equal ones at level 0, zeros at the last.

    The bits of numbers grow with them; every other level, the difference between those of both has doubled.
    However close together the greatest distances lie, some level parts them.
    """
    below = top.to(tl.int32, bitcast=True) - squares.to(tl.int32, bitcast=True)
    level = tl.maximum((below.to(tl.float32).to(tl.int32, bitcast=True) >> 22) - 253, 0)
    return tl.where(squares > 0, level, LEVELS - 1)


@triton.jit
@no_type_check
def _approach_kernel(
    points, squares, greatest, new, n_new, length,  # (3, L), (L,), (Q,), (3, CANDIDATES), (1,)
    CANDIDATES: tl.constexpr, BLOCK: tl.constexpr, BLOCK_NEW: tl.constexpr,
):  # fmt: skip
    """squares[p] = the least of it and of the squared distances to the new points; greatest: of each block."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(points + row)
    y = tl.load(points + length + row)
    z = tl.load(points + 2 * length + row)
    count = tl.load(n_new)
    best = tl.full((BLOCK, BLOCK_NEW), float("inf"), tl.float32)
    for first in range(0, count, BLOCK_NEW):
        one = first + tl.arange(0, BLOCK_NEW)
        x_new = tl.load(new + one, mask=one < count, other=float("inf"))
        y_new = tl.load(new + CANDIDATES + one, mask=one < count, other=float("inf"))
        z_new = tl.load(new + 2 * CANDIDATES + one, mask=one < count, other=float("inf"))
        best = tl.minimum(best, _squared(x, y, z, x_new, y_new, z_new))
    least = tl.minimum(tl.load(squares + row), tl.min(best, axis=1))
    tl.store(squares + row, least)
    tl.store(greatest + tl.program_id(0), tl.max(least, axis=0))


@triton.jit
@no_type_check
def _count_kernel(
    squares, values, greatest, top, counts, settled, n_greatest,  # (L,), (L,), (Q,), (1,), (P, LEVELS), (P,)
    LEVELS: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """top = the greatest squared distance; counts[p, k] = points of block p at levels up to k.

    settled[p] = points of block p that were selected at a greater distance: what comes later comes after them.
    """
    block = tl.program_id(0)
    row = block * BLOCK + tl.arange(0, BLOCK)
    highest = tl.zeros((TOGETHER,), tl.float32)
    for first in range(0, n_greatest, TOGETHER):
        one = first + tl.arange(0, TOGETHER)
        highest = tl.maximum(highest, tl.load(greatest + one, mask=one < n_greatest, other=0.0))
    summit = tl.max(highest, axis=0)
    level = _level(tl.load(squares + row), summit, LEVELS)
    up_to = tl.arange(0, LEVELS)
    count = tl.sum((level[:, None] <= up_to[None, :]).to(tl.int32), axis=0)
    tl.store(counts + block * LEVELS + up_to, count)
    tl.store(settled + block, tl.sum((tl.load(values + row) > summit).to(tl.int32), axis=0))
    if block == 0:
        tl.store(top, summit)


@triton.jit
@no_type_check
def _gather_kernel(
    points, squares, top, counts, settled, wanted, candidates, rows, n_candidates, n_new, done, length,
    CANDIDATES: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """candidates (4, CANDIDATES), rows = x, y, z and squared distance of the first points, and where they are from.

    They are all points down to some level, in the order of their rows. If those of level 0, which are equally far, are
    too many, the first of them. None, and done = 1, when as many as are wanted are settled, or only copies are left.
    """
    block = tl.program_id(0)
    up_to = tl.arange(0, LEVELS)
    total = tl.zeros((LEVELS,), tl.int32)
    earlier = tl.zeros((LEVELS,), tl.int32)
    enough = tl.zeros((TOGETHER,), tl.int32)
    for first in range(0, length // BLOCK, TOGETHER):
        one = first + tl.arange(0, TOGETHER)
        known = one < length // BLOCK
        count = tl.load(counts + one[:, None] * LEVELS + up_to[None, :], mask=known[:, None], other=0)
        total += tl.sum(count, axis=0)
        earlier += tl.sum(tl.where((one < block)[:, None], count, 0), axis=0)
        enough += tl.load(settled + one, mask=known, other=0)
    fitting = tl.sum((total <= CANDIDATES).to(tl.int32), axis=0)
    last = tl.minimum(tl.maximum(fitting - 1, 0), LEVELS - 2)  # never the level of zeros

    summit = tl.load(top)
    row = block * BLOCK + tl.arange(0, BLOCK)
    square = tl.load(squares + row)
    chosen = _level(square, summit, LEVELS) <= last
    place = tl.sum(tl.where(up_to == last, earlier, 0), axis=0) + tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    chosen = chosen & (place < CANDIDATES)
    for axis in range(3):
        tl.store(candidates + axis * CANDIDATES + place, tl.load(points + axis * length + row), mask=chosen)
    tl.store(candidates + 3 * CANDIDATES + place, square, mask=chosen)
    tl.store(rows + place, row, mask=chosen)
    if block == 0:
        finished = (tl.sum(enough, axis=0) >= tl.load(wanted)) | (summit == 0.0)
        found = tl.minimum(tl.sum(tl.where(up_to == last, total, 0), axis=0), CANDIDATES)
        tl.store(n_candidates, tl.where(finished, 0, found))
        tl.store(done, finished.to(tl.int32))
        tl.store(n_new, 0)  # the new points of the last round have been looked at


@triton.jit
@no_type_check
def _select_kernel(
    candidates, rows, n_candidates, values, new, n_new,  # (4, CANDIDATES), (CANDIDATES,), (1,), (L,), (3, CANDIDATES)
    CANDIDATES: tl.constexpr, BLOCK: tl.constexpr, BLOCK_OTHER: tl.constexpr,
):  # fmt: skip
    """new, values[p] = the safe candidates, in any order; the squared distances that they are selected at."""
    count = tl.load(n_candidates)
    one = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if tl.program_id(0) * BLOCK < count:
        x = tl.load(candidates + one, mask=one < count, other=0.0)
        y = tl.load(candidates + CANDIDATES + one, mask=one < count, other=0.0)
        z = tl.load(candidates + 2 * CANDIDATES + one, mask=one < count, other=0.0)
        square = tl.load(candidates + 3 * CANDIDATES + one, mask=one < count, other=0.0)
        blocked = tl.zeros((BLOCK, BLOCK_OTHER), tl.int32)
        for first in range(0, count, BLOCK_OTHER):
            other = first + tl.arange(0, BLOCK_OTHER)
            x_other = tl.load(candidates + other, mask=other < count, other=0.0)
            y_other = tl.load(candidates + CANDIDATES + other, mask=other < count, other=0.0)
            z_other = tl.load(candidates + 2 * CANDIDATES + other, mask=other < count, other=0.0)
            square_other = tl.load(candidates + 3 * CANDIDATES + other, mask=other < count, other=0.0)
            tie = (square_other[None, :] == square[:, None]) & (other[None, :] < one[:, None])
            before = (square_other[None, :] > square[:, None]) | tie
            near = _squared(x, y, z, x_other, y_other, z_other) < square_other[None, :]
            blocked = tl.maximum(blocked, (before & near).to(tl.int32))
        safe = (tl.max(blocked, axis=1) == 0) & (one < count)
        taken = tl.atomic_add(n_new, tl.sum(safe.to(tl.int32), axis=0))  # in any order: nothing depends on it
        place = taken + tl.cumsum(safe.to(tl.int32), axis=0) - 1
        tl.store(new + place, x, mask=safe)
        tl.store(new + CANDIDATES + place, y, mask=safe)
        tl.store(new + 2 * CANDIDATES + place, z, mask=safe)
        tl.store(values + tl.load(rows + one, mask=one < count, other=0), square, mask=safe)


class _Selection:
    """The memory of a selection, which its launches read and write where it is; on a GPU they are recorded.

    values (L,): squared distance at which a point was selected, infinite for the start, 0 for those not selected.
    done (1,): not 0 when the n points of the greatest values are final.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        """length: of clouds at most, in whole blocks."""
        blocks = length // _BLOCK
        floats = partial(torch.zeros, dtype=torch.float32, device=device)
        ints = partial(torch.zeros, dtype=torch.int32, device=device)
        with torch.inference_mode(False):  # made in that mode, memory could be used in that mode alone
            self.points, self.squares, self.values = floats(3, length), floats(length), floats(length)
            self.greatest, self.top = floats(length // _NEAR[0]), floats(1)
            self.counts, self.settled = ints(blocks, _LEVELS), ints(blocks)
            self.candidates, self.rows = floats(4, _CANDIDATES), ints(_CANDIDATES)
            self.new = floats(3, _CANDIDATES)
            self.n_candidates, self.n_new, self.wanted, self.done = ints(1), ints(1), ints(1), ints(1)
        self.advance: Callable[[], None] = self._launch
        if device.type == "cuda":
            self.advance = recorded(self._launch, device)[0].replay  # of copies of one point, so far

    def begin(self, points: Float32[Tensor, "N 3"], n: int, start: int) -> None:
        """Select the start, so that `advance` selects the n - 1 after it; nothing here waits for the device."""
        for memory in (self.points, self.squares, self.values):
            memory.zero_()  # what follows the points has distance 0, as copies of selected points have
        self.points[:, : len(points)].copy_(points.T)
        self.squares[: len(points)].fill_(_FAR)
        self.values[start].fill_(math.inf)
        self.new[:, 0].copy_(points[start])
        self.n_new.fill_(1)
        self.wanted.fill_(n)
        self.done.zero_()

    def _launch(self) -> None:
        """Several rounds. Those after the last do nothing."""
        near, block_new = _NEAR
        block_one, block_other = _SAFE
        length, wide = self.points.shape[1], {"num_warps": 8, **_COMPILE}
        grid = (length // _BLOCK,)
        with on_device_of(self.points):
            for _ in range(_ROUNDS):
                _approach_kernel[(length // near,)](
                    self.points, self.squares, self.greatest, self.new, self.n_new, length,
                    CANDIDATES=_CANDIDATES, BLOCK=near, BLOCK_NEW=block_new, num_warps=2, **_COMPILE,
                )  # fmt: skip
                _count_kernel[grid](
                    self.squares, self.values, self.greatest, self.top, self.counts, self.settled, length // near,
                    LEVELS=_LEVELS, BLOCK=_BLOCK, TOGETHER=4 * _TOGETHER, **wide,
                )  # fmt: skip
                _gather_kernel[grid](
                    self.points, self.squares, self.top, self.counts, self.settled, self.wanted,
                    self.candidates, self.rows, self.n_candidates, self.n_new, self.done, length,
                    CANDIDATES=_CANDIDATES, LEVELS=_LEVELS, BLOCK=_BLOCK, TOGETHER=_TOGETHER, **wide,
                )  # fmt: skip
                _select_kernel[(triton.cdiv(_CANDIDATES, block_one),)](
                    self.candidates, self.rows, self.n_candidates, self.values, self.new, self.n_new,
                    CANDIDATES=_CANDIDATES, BLOCK=block_one, BLOCK_OTHER=block_other, **wide,
                )  # fmt: skip


_one_at_a_time = Lock()  # threads may share a stream, and so a selection


@lru_cache(maxsize=4)
def _selection(length: int, device: torch.device, stream: int) -> _Selection:
    """Each stream has its own, for streams do not wait for each other."""
    return _Selection(length, device)


def farthest_points(points: Float[Tensor, "N 3"], n: int, start: int = 0) -> Int64[Tensor, " K"]:
    """Indices of n points in order of selection, each the farthest from all that were selected before it.

    Exactly those of `densescan.geometry.sampling.farthest_point_sampling` where it scans all points: the first of
    equally far points, and copies of one point in the order of their indices, when all distinct points are used up.
    Waits for the device a few times. Not differentiable.

    Args: points: coordinates [m], any frame, rounded to float32. n: number of points wanted; all N points, in their
        own order, where the cloud has no more. start: index of the first point.
    Raises: InputError: n below 1, start outside the cloud, a point that is not finite, or more than `MAX_POINTS`.
    Deviation: points whose squared distance is 0 in float32, nearer than 1e-23 m, count as copies.
    """
    if n < 1 or not 0 <= start < max(len(points), 1):
        raise InputError(f"expected n >= 1 and start below {len(points)}, got n = {n} and start = {start}")
    if len(points) > MAX_POINTS:
        raise InputError(f"expected {MAX_POINTS} points at most, got {len(points)}")
    cloud = points.detach().float()
    if not bool(torch.isfinite(cloud).all()):
        raise InputError("expected finite points, got NaN or infinite ones: drop them first")
    if n >= len(cloud):
        return torch.arange(len(cloud), device=cloud.device)
    length = triton.cdiv(len(cloud), _LENGTHS) * _LENGTHS
    stream = torch.cuda.current_stream(cloud.device).cuda_stream if cloud.is_cuda else 0
    with ALONE, _one_at_a_time:
        selection = _selection(length, cloud.device, stream)
        selection.begin(cloud, n, start)
        while not bool(selection.done):
            selection.advance()
        return selection.values.sort(descending=True, stable=True).indices[:n].clone()
