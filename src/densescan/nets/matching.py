"""For each scene voxel the nearest condition voxel."""

import numpy as np
import torch
from jaxtyping import Int
from scipy.spatial import cKDTree
from torch import Tensor

from densescan.errors import InputError
from densescan.sparse.backends import backend_of, room
from densescan.sparse.tensor import Voxels

PAIRS_AT_ONCE = 1 << 26  # distances held at a time by the exhaustive search


def nearest_voxel(queries: Voxels, targets: Voxels) -> Int[Tensor, " V"]:
    """Row of the target voxel nearest to each query voxel, within the same batch element.

    Distances are Euclidean between the voxels' lower corners, in units of the finest level; among equally near
    targets the lexicographically smallest coordinate wins, whatever the order of rows or points.

    Raises: InputError: a batch element has queries but no target; on a GPU, where looking would mean waiting, that
        fails as a device-side assertion.
    Source: the released networks match by nearest coordinate. Deviation: they break ties by the row order of a hash
    table, and may match across the batch where coordinates are mostly negative; both depend on chance.
    """
    if backend_of(queries.keys) == "triton":
        from densescan.sparse.backends.levels import nearest_rows

        found = nearest_rows(queries, targets)
        if (
            room.current() is not None
        ):  # a cloud without targets is not valid, and rows without voxel need none
            return found.clamp(min=0)
        torch._assert_async((found >= 0).all())
        return found
    n_batches = int(queries.batch[-1]) + 1 if len(queries) else 0
    edges = torch.arange(n_batches + 1, device=queries.keys.device)
    q_edges = torch.searchsorted(queries.batch.contiguous(), edges).tolist()
    t_edges = torch.searchsorted(targets.batch.contiguous(), edges).tolist()
    search = _by_tree if queries.keys.device.type == "cpu" else _exhaustive
    rows = []
    for b in range(n_batches):
        q = queries.coords[q_edges[b] : q_edges[b + 1], 1:]
        t = targets.coords[t_edges[b] : t_edges[b + 1], 1:]
        if len(q) and not len(t):
            raise InputError(
                f"batch element {b} has {len(q)} scene voxels but no condition voxel: its scan is empty"
            )
        rows.append(t_edges[b] + (search(q, t) if len(t) > 1 else q.new_zeros(len(q))))
    return torch.cat(rows) if rows else queries.keys.new_zeros(0)


def _by_tree(q: Int[Tensor, "V 3"], t: Int[Tensor, "P 3"]) -> Int[Tensor, " V"]:
    """k-d tree search. Targets are sorted; a fourth coordinate adds rank / P < 1 to the squared distance (an integer)
    of each, which settles ties and nothing else."""
    rank = np.sqrt(np.arange(len(t)) / len(t))
    tree = cKDTree(np.column_stack((t.numpy(), rank)))
    points = np.column_stack((q.numpy(), np.zeros(len(q))))
    return torch.from_numpy(tree.query(points, workers=-1)[1])


def _exhaustive(q: Int[Tensor, "V 3"], t: Int[Tensor, "P 3"]) -> Int[Tensor, " V"]:
    """All distances, in chunks, in exact integer arithmetic."""
    rank = torch.arange(len(t), device=t.device)
    chunks = []
    for part in q.split(max(1, PAIRS_AT_ONCE // len(t))):
        squared = sum((part[:, None, axis] - t[None, :, axis]) ** 2 for axis in range(3))
        chunks.append((squared * len(t) + rank).argmin(1))
    return torch.cat(chunks)
