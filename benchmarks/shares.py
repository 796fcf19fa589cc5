"""Where the time of a completion goes: seconds by kind of work, from Python's own profiler.

Each kind is named by the functions that do it, so that a renamed function is an import error here and not a zero.
"""

import cProfile
import pstats
from collections.abc import Callable
from inspect import unwrap
from typing import Any

from densescan.geometry.sampling import farthest_point_sampling
from densescan.nets.fused import FusedPointwise
from densescan.nets.matching import nearest_voxel
from densescan.sparse.epilogue import Epilogue
from densescan.sparse.functional import finished_conv, linear, points_to_voxels, sparse_conv
from densescan.sparse.modules import BatchNorm, LayerNorm, PointwiseConv, ReLU
from densescan.sparse.rows import gather
from densescan.sparse.tensor import Voxels, voxelise

CONVOLUTION = [sparse_conv, finished_conv, PointwiseConv.forward, FusedPointwise.forward]
FINISH = [Epilogue.__call__]
"""What follows a convolution within it: norm, shortcut and ReLU."""
GATHER, SCATTER = "index_select", "embedding_bag"
"""The operations that fetch the rows of a convolution and add its products."""

OTHER_WORK: dict[str, list[Any]] = {
    "voxels and kernel maps": [voxelise, Voxels.submanifold.func, Voxels.coarser.fget, Voxels.strided.fget],
    "matching to the condition": [nearest_voxel],
    "linear layers": [linear],
    "norm and ReLU": [BatchNorm.forward, LayerNorm.forward, ReLU.forward, *FINISH],
    "points to voxels and back": [points_to_voxels, gather],
    "farthest point sampling": [farthest_point_sampling],
}

Stats = dict[Any, Any]
"""(file, line, function) -> (primitive calls, calls, own seconds, seconds with all that it calls, callers)."""


def time_shares(work: Callable[[], object]) -> dict[str, float]:
    """Run `work` under the profiler. Returns seconds by kind of work; their sum is the whole run."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    stats: Stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    convolution = _inside(stats, CONVOLUTION) - _inside(stats, FINISH)
    gathered, scattered = _operation(stats, GATHER), _operation(stats, SCATTER)
    shares = {
        "convolution: gather": gathered,
        "convolution: multiply": convolution - gathered - scattered,
        "convolution: scatter": scattered,
        **{name: _inside(stats, functions) for name, functions in OTHER_WORK.items()},
    }
    return shares | {"the rest": total - sum(shares.values())}


def _inside(stats: Stats, functions: list[Any]) -> float:
    """Seconds spent in functions and in all they call; they must not call each other."""
    codes = [unwrap(function).__code__ for function in functions]
    keys = [(code.co_filename, code.co_firstlineno, code.co_name) for code in codes]
    return sum((stats[key][3] for key in keys if key in stats), 0.0)


def _operation(stats: Stats, name: str) -> float:
    """Seconds spent in an operation of PyTorch."""
    return sum((entry[3] for key, entry in stats.items() if key[2] == f"<built-in method torch.{name}>"), 0.0)
