"""The condition encoder: a scan becomes a few thousand feature vectors, each with its place."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from densescan.nets.minkunet import EncoderHalf, embed_points
from densescan.sparse.tensor import Voxels


@dataclass(frozen=True)
class Condition:
    """What the denoiser knows of the scan: features (P, C) on voxels 16 times the finest size."""

    feats: Float[Tensor, "P C"]
    voxels: Voxels


class ConditionEncoder(EncoderHalf):
    """Encoder half of the U-Net, run on the scan. Depends on the scan alone: run it once a scan."""

    def forward(self, scan: Float[Tensor, "B N 3"]) -> Condition:
        """scan: points [m], sensor frame. Returns the features at stride 16."""
        x = self.stem(embed_points(scan, self.config).tensor)
        for i in range(1, 5):
            x = self.stage(i, x)
        return Condition(x.feats, x.voxels)

    def unconditional(self, batch: int = 1) -> Condition:
        """The condition of the unguided branch: a scan whose points all lie at the origin, hence one voxel."""
        parameter = next(self.parameters())
        return self(torch.zeros(batch, 1, 3, dtype=parameter.dtype, device=parameter.device))
