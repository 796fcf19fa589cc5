"""Which input row meets which output row under each kernel offset.

Offsets are numbered with x running fastest, as MinkowskiEngine numbers them, so that official weights load:
k = (dx + 1) + 3 (dy + 1) + 9 (dz + 1) for the 3x3x3 kernel, k = dx + 2 dy + 4 dz for the 2x2x2 kernel.
"""

from dataclasses import dataclass
from functools import cached_property
from weakref import ref

import torch
from jaxtyping import Int
from torch import Tensor

from densescan.sparse.chunks import Chunk, cut, pairs_at_once
from densescan.sparse.keys import first_not_below, key_step

CENTRE = 13  # number of the offset (0, 0, 0) in the 3x3x3 kernel
# (dx, dy) after (0, 0) in lexicographic order; the rest by symmetry:
_HALF_PLANE = ((0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True)
class KernelMap:
    """Row pairs of a sparse convolution: out[out_rows[k]] += in[in_rows[k]] @ kernel[k] for every offset k.

    Within one offset the rows ascend, on either side. `None` in place of a pair of row lists stands for the identity
    (the centre offset). symmetric: the last offset undoes the first, the last but one the second, and so on.
    """

    pairs: tuple[tuple[Tensor, Tensor] | None, ...]
    n_in: int
    n_out: int
    symmetric: bool = False

    @property
    def transposed(self) -> "KernelMap":
        """The map of the adjoint: inputs and outputs exchanged. The adjoint's is this map, as long as that lives."""
        kept = vars(self)
        origin: KernelMap | None = kept["origin"]() if "origin" in kept else None
        if origin is not None:
            return origin
        if "adjoint" not in kept:
            kept["adjoint"] = self._transposed()
            vars(kept["adjoint"])["origin"] = ref(self)  # weak: they would keep each other in memory
        adjoint: KernelMap = kept["adjoint"]
        return adjoint

    def _transposed(self) -> "KernelMap":
        return KernelMap(tuple(p and (p[1], p[0]) for p in self.pairs), n_in=self.n_out, n_out=self.n_in)

    @property
    def n_pairs(self) -> int:
        """Of all offsets."""
        return sum(self.n_in if pair is None else len(pair[0]) for pair in self.pairs)

    def chunks(self, dtype: torch.dtype) -> tuple[Chunk, ...]:
        """The same pairs in the order in which processors take them; cut once for each number of chunks.

        dtype: of the numbers that are multiplied.
        """
        n_chunks = -(-self.n_pairs // pairs_at_once(dtype))
        if n_chunks not in self._cuts:
            device = next((pair[0].device for pair in self.pairs if pair is not None), None)
            every = torch.arange(self.n_in, device=device)
            ins, outs = zip(*((every, every) if p is None else p for p in self.pairs), strict=True)
            same = self.pairs.index(None) if None in self.pairs else None
            self._cuts[n_chunks] = cut(list(ins), list(outs), self.n_out, n_chunks, same)
        return self._cuts[n_chunks]

    @cached_property
    def _cuts(self) -> dict[int, tuple[Chunk, ...]]:
        return {}


def submanifold_map(keys: Int[Tensor, " V"]) -> KernelMap:
    """The 3x3x3 map of a voxel set onto itself.

    keys: sorted, unique. Two facts make 4 searches enough for 27 offsets: the map is symmetric (the pairs of -d are
    those of d, exchanged), and voxels that differ by one in z have adjacent keys, so that one search finds three.
    """
    pairs: list[tuple[Tensor, Tensor] | None] = [None] * 27
    above = torch.nonzero(keys[1:] == keys[:-1] + 1).squeeze(1)
    _store(pairs, (0, 0, 1), in_rows=above + 1, out_rows=above)
    for dx, dy in _HALF_PLANE:
        target = keys + key_step(dx, dy, -1)
        row = first_not_below(keys, target)
        for dz in (-1, 0, 1):
            hit = keys[row.clamp(max=len(keys) - 1)] == target
            hit &= row < len(keys)
            out_rows = torch.nonzero(hit).squeeze(1)
            _store(pairs, (dx, dy, dz), in_rows=row[out_rows], out_rows=out_rows)
            row, target = row + hit, target + 1
    return KernelMap(tuple(pairs), n_in=len(keys), n_out=len(keys), symmetric=True)


def _store(
    pairs: list[tuple[Tensor, Tensor] | None], d: tuple[int, int, int], in_rows: Tensor, out_rows: Tensor
) -> None:
    k = (d[0] + 1) + 3 * (d[1] + 1) + 9 * (d[2] + 1)
    pairs[k] = (in_rows, out_rows)
    pairs[26 - k] = (out_rows, in_rows)


def strided_map(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], n_coarse: int) -> KernelMap:
    """The 2x2x2 map from fine voxels to the coarse voxels that contain them.

    parent: row of the coarse voxel of every fine voxel. slot: number of the corner it fills there, in [0, 8).
    """
    order = torch.argsort(slot, stable=True)
    counts = torch.bincount(slot, minlength=8).tolist()
    pairs = tuple((rows, parent[rows]) for rows in order.split(counts))
    return KernelMap(pairs, n_in=len(parent), n_out=n_coarse)
