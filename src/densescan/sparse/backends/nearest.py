"""Nearest neighbours between two clouds of points by a Triton kernel; nothing here waits for the device.

Both clouds are put in an order in which points that follow each other lie close together, and cut into blocks. A
program takes a block of queries, looks at the bounding boxes of all blocks of targets, and compares points where a box
comes nearer to a query than what that query has found. The order decides on the speed alone.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, on_device_of

_BLOCKS = (64, 64, 128)  # queries of a program, targets of a block, boxes that a program looks at together
_BITS = 16  # the grid that orders the points has 2^16 cells an axis: 1.5 mm over 100 m
_SPREAD = ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249))
"""How two zeros come between each bit of a number of 16 and the next: shifts, and the bits that stay."""
MAX_POINTS = 700_000_000  # of a cloud: three coordinates each are counted in 32 bits


@triton.jit
@no_type_check
def _along(low, high, boxes, n_boxes, box, AXIS: tl.constexpr, FARTHEST: tl.constexpr):
    """Least or greatest distance along an axis between points of an interval and of boxes; infinite beyond the last."""
    known = box < n_boxes
    box_low = tl.load(boxes + AXIS * n_boxes + box, mask=known, other=float("inf"))
    box_high = tl.load(boxes + (3 + AXIS) * n_boxes + box, mask=known, other=float("inf"))
    if FARTHEST:
        distance = tl.maximum(box_high - low, high - box_low)
    else:
        distance = tl.maximum(tl.maximum(box_low - high, low - box_high), 0.0)
    return distance


@triton.jit
@no_type_check
def _squared_reach(
    x_low, x_high, y_low, y_high, z_low, z_high,
    boxes, n_boxes, box, FARTHEST: tl.constexpr,
):  # fmt: skip
    """Square of the least or the greatest distance that points of a box can have to those of other boxes."""
    x = _along(x_low, x_high, boxes, n_boxes, box, 0, FARTHEST)
    y = _along(y_low, y_high, boxes, n_boxes, box, 1, FARTHEST)
    z = _along(z_low, z_high, boxes, n_boxes, box, 2, FARTHEST)
    return x * x + y * y + z * z


@triton.jit
@no_type_check
def _nearer(best, row, x, y, z, targets, n_targets, box, BLOCK_T: tl.constexpr):
    """The least squared distances so far and their rows, after the targets of a box have been compared as well."""
    target = box * BLOCK_T + tl.arange(0, BLOCK_T)
    dx = x[:, None] - tl.load(targets + target)[None, :]
    dy = y[:, None] - tl.load(targets + n_targets + target)[None, :]
    dz = z[:, None] - tl.load(targets + 2 * n_targets + target)[None, :]
    squared, at = tl.min(dx * dx + dy * dy + dz * dz, axis=1, return_indices=True)
    closer = squared < best
    return tl.where(closer, squared, best), tl.where(closer, box * BLOCK_T + at, row)


@triton.jit
@no_type_check
def _nearest_point_kernel(
    queries, targets, boxes, squares, rows, n_queries, n_targets,  # (3, N), (3, M), (6, M / BLOCK_T), (N,), (N,)
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_BOXES: tl.constexpr,
):  # fmt: skip
    """squares[q], rows[q] = squared distance and row of the target nearest to query q; N and M are whole blocks.

    boxes: least x, y and z of each block of targets, then the greatest.

    The box that must hold a near target comes first, so that few others need a look.
    """
    n_boxes = n_targets // BLOCK_T
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    x = tl.load(queries + query)
    y = tl.load(queries + n_queries + query)
    z = tl.load(queries + 2 * n_queries + query)
    x_low, x_high = tl.min(x, axis=0), tl.max(x, axis=0)
    y_low, y_high = tl.min(y, axis=0), tl.max(y, axis=0)
    z_low, z_high = tl.min(z, axis=0), tl.max(z, axis=0)

    bound = tl.full((BLOCK_BOXES,), float("inf"), tl.float32)
    bound_box = tl.zeros((BLOCK_BOXES,), tl.int32)
    for first in range(0, n_boxes, BLOCK_BOXES):
        box = first + tl.arange(0, BLOCK_BOXES)
        greatest = _squared_reach(x_low, x_high, y_low, y_high, z_low, z_high, boxes, n_boxes, box, True)
        bound_box = tl.where(greatest < bound, box, bound_box)
        bound = tl.minimum(greatest, bound)
    start = tl.min(tl.where(bound == tl.min(bound, axis=0), bound_box, n_boxes - 1), axis=0)
    best = tl.full((BLOCK_Q,), float("inf"), tl.float32)
    row = tl.zeros((BLOCK_Q,), tl.int32)
    best, row = _nearer(best, row, x, y, z, targets, n_targets, start, BLOCK_T)

    for first in range(0, n_boxes, BLOCK_BOXES):
        box = first + tl.arange(0, BLOCK_BOXES)
        gap = _squared_reach(x_low, x_high, y_low, y_high, z_low, z_high, boxes, n_boxes, box, False)
        gap = tl.where(box == start, float("inf"), gap)
        one = tl.min(tl.where(gap < tl.max(best, axis=0), box, n_boxes), axis=0)
        while one < n_boxes:
            near = _squared_reach(x, x, y, y, z, z, boxes, n_boxes, one, False)
            if tl.max((near < best).to(tl.int32), axis=0) > 0:
                best, row = _nearer(best, row, x, y, z, targets, n_targets, one, BLOCK_T)
            ahead = (box > one) & (gap < tl.max(best, axis=0))
            one = tl.min(tl.where(ahead, box, n_boxes), axis=0)
    tl.store(squares + query, best)
    tl.store(rows + query, row)


def nearest_points(
    queries: Float[Tensor, "N 3"], targets: Float[Tensor, "M 3"]
) -> tuple[Float32[Tensor, " N"], Int64[Tensor, " N"]]:
    """Distance from each query to the target nearest to it [m], and the row of that target.

    The search is exact, in float32: coordinates are rounded to it, then subtracted. Equally near targets: any of them,
    but the same one every time. Not differentiable. Where a coordinate is not finite, in whichever cloud, all distances
    are NaN: to look and raise would mean to wait.

    Args: queries, targets: points [m], one frame, on the same device.
    Raises: ValueError: no targets, or more than `MAX_POINTS` points in a cloud.
    """
    if len(targets) == 0 or max(len(queries), len(targets)) > MAX_POINTS:
        raise ValueError(
            f"expected 1 to {MAX_POINTS} targets and as many queries at most, got {len(targets)} and {len(queries)}"
        )
    queries, targets = queries.detach().float(), targets.detach().float()
    finite = torch.isfinite(queries).all() & torch.isfinite(targets).all()
    queries, targets = (torch.nan_to_num(points, 0.0, 0.0, 0.0) for points in (queries, targets))
    squares = torch.empty(len(queries), dtype=torch.float32, device=queries.device)
    rows = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    if len(queries) == 0:
        return squares, rows
    block_q, block_t, _ = _BLOCKS
    query_order, target_order = _in_blocks(queries, block_q), _in_blocks(targets, block_t)
    found, at = _search(queries[query_order], targets[target_order])
    squares[query_order], rows[query_order] = found, target_order[at]
    return torch.where(finite, squares.sqrt(), torch.nan), rows


def _search(
    queries: Float32[Tensor, "N 3"], targets: Float32[Tensor, "M 3"]
) -> tuple[Float32[Tensor, " N"], Int64[Tensor, " N"]]:
    """Squared distance and row of the nearest target; both clouds in whole blocks."""
    block_q, block_t, block_boxes = _BLOCKS
    blocks = targets.view(-1, block_t, 3)
    boxes = torch.cat((blocks.amin(1), blocks.amax(1)), 1).T.contiguous()
    squares = torch.empty(len(queries), dtype=torch.float32, device=queries.device)
    rows = torch.empty(len(queries), dtype=torch.int32, device=queries.device)
    with on_device_of(queries):
        _nearest_point_kernel[(len(queries) // block_q,)](
            queries.T.contiguous(), targets.T.contiguous(), boxes, squares, rows, len(queries), len(targets),
            BLOCK_Q=block_q, BLOCK_T=block_t, BLOCK_BOXES=block_boxes, **COMPILE,
        )  # fmt: skip
    return squares, rows.long()


def _in_blocks(points: Float32[Tensor, "N 3"], block: int) -> Int64[Tensor, " L"]:
    """Rows in an order in which neighbours are close, the last one repeated up to a whole number of blocks.

    The order is that of the cells of a cubic grid over the cloud along Morton's curve: the bits of x, y and z in turn.
    """
    low = points.amin(0)
    extent = (points.amax(0) - low).amax()
    scale = (2**_BITS - 1) / extent.clamp_min(torch.finfo(torch.float32).tiny)
    cells = ((points - low) * scale).long()
    for shift, mask in _SPREAD:
        cells = (cells | cells << shift) & mask
    codes = cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2
    order = codes.argsort(stable=True)
    return torch.cat((order, order[-1:].expand(-len(order) % block)))
