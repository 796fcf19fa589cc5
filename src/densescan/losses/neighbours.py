"""Which point of one cloud is nearest to each point of another: the pairs that losses hold fixed."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from densescan.sparse.backends import backend_of


def nearest_rows(queries: Float[Tensor, "N D"], targets: Float[Tensor, "M D"]) -> Int64[Tensor, " N"]:
    """Row of the target nearest to each query; any of equally near ones. Not differentiable.

    In space and on a GPU: exact in float32, without waiting for the device. Elsewhere: by k-d trees, on all cores of
    the processor.

    Args: queries, targets: points [m], one frame, on the same device.
    Raises: ValueError: no targets, or a coordinate that is not finite; on a GPU, where looking would mean waiting, the
        latter fails as a device-side assertion.
    """
    if len(targets) == 0:
        raise ValueError("expected at least one target, got none")
    if queries.shape[1] == 3 and backend_of(queries) == "triton":
        from densescan.sparse.backends.nearest import nearest_points

        distances, found = nearest_points(queries, targets)
        torch._assert_async(torch.isfinite(distances).all())
        return found
    tree = cKDTree(targets.detach().cpu().numpy(), balanced_tree=False, compact_nodes=False)
    rows: np.ndarray = tree.query(queries.detach().cpu().numpy(), workers=-1)[1]
    return torch.from_numpy(rows).to(queries.device)
