"""The condition encoder: a scan becomes a few thousand feature vectors, each with its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densescan.nets.minkunet import EncoderHalf, embed_points
from densescan.sparse.keys import pack_batch
from densescan.sparse.tensor import Voxels


@dataclass(frozen=True)
class Condition:
    """What the denoiser knows of the scan: features (P, C) on voxels 16 times the finest size, and the scan itself."""

    feats: Float[Tensor, "P C"]
    voxels: Voxels
    scan: Float[Tensor, "B N 3"]
    latents: Mapping[str, Float[Tensor, "P C"]] = field(default_factory=dict)
    """What one denoiser makes of the features at each place, whatever the time; empty unless `Denoiser.prepared`."""


class ConditionEncoder(EncoderHalf):
    """Encoder half of the U-Net, run on the scan. Depends on the scan alone: run it once a scan."""

    def forward(self, scan: Float[Tensor, "B N 3"]) -> Condition:
        """scan: points [m], sensor frame. Returns the features at stride 16."""
        x = self.stem(embed_points(scan, self.config).tensor)
        for i in range(1, 5):
            x = self.stage(i, x)
        return Condition(x.feats, x.voxels, scan)

    def unconditional(self, batch: int = 1) -> Condition:
        """The condition of the unguided branch: a scan whose points all lie at the origin, hence one voxel."""
        parameter = next(self.parameters())
        return self(torch.zeros(batch, 1, 3, dtype=parameter.dtype, device=parameter.device))


def drop_condition(cond: Condition, null: Condition, dropped: Bool[Tensor, " B"]) -> Condition:
    """Replace the condition of some batch elements by the null condition.

    cond: of the whole batch. null: of a batch of one, as `ConditionEncoder.unconditional` gives it.
    """
    kept = ~dropped[cond.voxels.batch]
    elements = torch.nonzero(dropped).squeeze(1)
    keys = torch.cat((cond.voxels.keys[kept], *(null.voxels.keys + pack_batch(b) for b in elements.tolist())))
    feats = torch.cat((cond.feats[kept], *(null.feats for _ in elements)))
    order = torch.argsort(keys)
    scan = torch.where(dropped[:, None, None], null.scan[:, :1], cond.scan)
    return Condition(feats[order], Voxels(keys[order], cond.voxels.stride), scan)
