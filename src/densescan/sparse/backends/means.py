"""The mean of the points in every voxel, by a Triton kernel."""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float32
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of
from densescan.sparse.tensor import PointMap

_BLOCK = 256


@triton.jit(do_not_specialize=["n_points", "n_voxels"], do_not_specialize_on_alignment=["present"])
@no_type_check
def _means_kernel(
    feats, order, begins, present, means, n_points, n_voxels,  # (P, C), (P,), (V,), (1,), (V, C)
    C: tl.constexpr, SPARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """means[v] = mean of feats[order[p]] over p from begins[v] to begins[v + 1]. SPARE: for v below present[0] alone;
    the others get 0."""
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    voxel, channel = entry // C, entry % C
    begin = tl.load(begins + voxel, mask=voxel < n_voxels, other=n_points)
    end = tl.load(begins + voxel + 1, mask=voxel + 1 < n_voxels, other=n_points)
    if SPARE:
        end = tl.where(voxel < tl.load(present), end, begin)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(tl.max(end - begin, axis=0).to(tl.int32)):
        held = begin + i < end
        point = tl.load(order + begin + i, mask=held, other=0)
        total += tl.load(feats + point * C + channel, mask=held, other=0.0)
    count = tl.maximum(end - begin, 1).to(tl.float32)
    tl.store(means + entry, tl.div_rn(total, count), mask=voxel < n_voxels)


def means_of_points(feats: Float32[Tensor, "P C"], point_map: PointMap) -> Float32[Tensor, "V C"]:
    """As `functional.points_to_voxels`, to the bit; not differentiable. Rows that hold no voxel get 0."""
    feats, present = feats.contiguous(), point_map.voxels.present
    (n_points, channels), n_voxels = feats.shape, len(point_map.voxels)
    means = feats.new_empty(n_voxels, channels)
    if n_voxels:
        with on_device_of(feats):
            _means_kernel[(cdiv(n_voxels * channels, _BLOCK),)](
                feats, point_map.order, point_map.offsets, feats if present is None else present, means,
                n_points, n_voxels, C=channels, SPARE=present is not None, BLOCK=_BLOCK, **COMPILE,
            )  # fmt: skip
    return means
