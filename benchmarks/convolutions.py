"""The convolutions of the networks, on which levels they run, and the work each is on a given scene."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from random_networks import REPEAT
from roofline import Work
from torch import Tensor, nn

from densescan.sparse.backends.table import MISSING, padding, table_of
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.modules import PointwiseConv, StridedConv, SubmanifoldConv, TransposedConv
from densescan.sparse.tensor import Voxels, voxelise

Kind = Literal["3x3x3", "down", "up", "1x1x1"]
KINDS: dict[type[nn.Module], Kind] = {
    SubmanifoldConv: "3x3x3",
    StridedConv: "down",
    TransposedConv: "up",
    PointwiseConv: "1x1x1",
}
TILE = 128
"""Rows of a program on a GPU, for the padding that tables tell."""
DEPTH = 5
"""Levels of the networks."""


@dataclass(frozen=True)
class Conv:
    """A convolution by what decides its cost. level: 0 is the finest of those it touches."""

    kind: Kind
    level: int
    c_in: int
    c_out: int

    @property
    def name(self) -> str:
        """Kind and channels."""
        return f"{self.kind} {self.c_in}-{self.c_out}"


def convolutions_of(net: nn.Module, part: str = "") -> Counter[Conv]:
    """How often each convolution occurs in one pass of a network, or of the part whose names begin so."""
    found: Counter[Conv] = Counter()
    for name, module in net.named_modules():
        if name.startswith(part) and type(module) in KINDS:
            kind = KINDS[type(module)]
            found[Conv(kind, _level(name, kind), *module.kernel.shape[-2:])] += 1
    return found


def _level(name: str, kind: Kind) -> int:
    """The finest level that a convolution touches, from its place in the network."""
    block = name.split(".")[0]
    if block == "stem":
        return 0
    i = int(block[-1])
    return DEPTH - 1 - i if block.startswith("up") else i - (kind == "down")


def maps_of(voxels: Voxels) -> dict[tuple[Kind, int], KernelMap | None]:
    """The map of each kind on each level; None where every row meets itself alone."""
    maps: dict[tuple[Kind, int], KernelMap | None] = {}
    for level in range(DEPTH):
        maps["3x3x3", level], maps["1x1x1", level] = voxels.submanifold, None
        if level < DEPTH - 1:
            maps["down", level], maps["up", level] = voxels.strided, voxels.strided.transposed
            voxels = voxels.coarser
    return maps


@dataclass(frozen=True)
class Size:
    """Rows and pairs of a map. padding: rows multiplied for each pair in tiles of `TILE` output rows."""

    n_in: int
    n_out: int
    pairs: int
    padding: float = 1.0

    @classmethod
    def of(cls, kernel_map: KernelMap | None, n: int) -> "Size":
        """n: rows of the level."""
        if kernel_map is None:
            return cls(n, n, n)
        table = table_of(kernel_map)
        return cls(
            kernel_map.n_in, kernel_map.n_out, int((table.rows != MISSING).sum()), padding(table, TILE)
        )

    def work(self, conv: Conv, bytes_each: int) -> Work:
        """What a convolution on this map has to do. bytes_each: of a feature or weight."""
        offsets = {"3x3x3": 27, "down": 8, "up": 8, "1x1x1": 1}[conv.kind]
        moved = self.n_in * conv.c_in + self.n_out * conv.c_out + offsets * conv.c_in * conv.c_out
        return Work(2.0 * self.pairs * conv.c_in * conv.c_out, float(bytes_each * moved))


def noisy_scene(
    scan: Float[Tensor, "N 3"], sigma: float, voxel_size: float, seed: int, device: str = "cpu"
) -> Voxels:
    """The voxels of a reduced scan, repeated and noised as in sampling. sigma: standard deviation [m]."""
    x_init = scan.repeat(REPEAT, 1)
    noise = torch.randn(x_init.shape, generator=torch.Generator().manual_seed(seed))
    cells = torch.round((x_init + sigma * noise) / voxel_size).long()
    return voxelise(torch.nn.functional.pad(cells, (1, 0)).to(device)).voxels
