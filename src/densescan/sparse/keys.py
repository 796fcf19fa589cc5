"""Voxel coordinates packed into one 64-bit integer, so that sorting and searching need one key a voxel.

A key holds (batch, x, y, z), from the highest bits to the lowest; comparing keys compares coordinates
lexicographically, negative ones included, and voxels that are neighbours along z have neighbouring keys.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from densescan.errors import InputError

AXIS_BITS = 16
BIAS = 1 << (AXIS_BITS - 1)  # makes negative coordinates sort below positive ones
MAX_COORD = BIAS - 2  # one voxel of margin, so that a neighbour never wraps into the next axis
MAX_BATCH = 1 << 14
_AXIS_MASK = (1 << AXIS_BITS) - 1


def pack(coords: Int[Tensor, "V 4"]) -> Int[Tensor, " V"]:
    """Keys of integer coordinates (batch, x, y, z).

    Raises: InputError: a coordinate beyond +-32,766 voxels or a batch index outside [0, 16384).
    """
    if coords.numel():
        lowest, highest = coords.amin(0).tolist(), coords.amax(0).tolist()
        if min(lowest[1:]) < -MAX_COORD or max(highest[1:]) > MAX_COORD:
            raise InputError(
                f"voxel coordinates span {min(lowest[1:])}..{max(highest[1:])}, at most +-{MAX_COORD} are supported: "
                "crop the points to a smaller range or use larger voxels"
            )
        if lowest[0] < 0 or highest[0] >= MAX_BATCH:
            raise InputError(
                f"batch indices {lowest[0]}..{highest[0]} leave [0, {MAX_BATCH}): use smaller batches"
            )
    b, x, y, z = coords.long().unbind(1)
    return (b << 3 * AXIS_BITS) + ((x + BIAS) << 2 * AXIS_BITS) + ((y + BIAS) << AXIS_BITS) + (z + BIAS)


def unpack(keys: Int[Tensor, " V"]) -> Int[Tensor, "V 4"]:
    """Coordinates (batch, x, y, z) of keys; the inverse of `pack`."""
    x, y, z = ((keys >> shift * AXIS_BITS) & _AXIS_MASK for shift in (2, 1, 0))
    return torch.stack((keys >> 3 * AXIS_BITS, x - BIAS, y - BIAS, z - BIAS), dim=1)


def key_step(dx: int, dy: int, dz: int) -> int:
    """What to add to a key to reach the voxel (dx, dy, dz) further on."""
    return (dx << 2 * AXIS_BITS) + (dy << AXIS_BITS) + dz


def pack_batch(batch: int) -> int:
    """What to add to a key of batch element 0 to move it to another batch element."""
    return batch << 3 * AXIS_BITS


def first_not_below(keys: Int[Tensor, " V"], targets: Int[Tensor, " P"]) -> Int[Tensor, " P"]:
    """The row of the first key that is not below each target, or V; both ascend.

    On processors NumPy searches: it starts where the last target was found, three times as fast for ascending ones.
    """
    if keys.device.type != "cpu":
        return torch.searchsorted(keys, targets)
    return torch.from_numpy(np.searchsorted(keys.numpy(), targets.numpy()))
