"""The refiner: moves and multiplies the points of a finished scene."""

import torch
from jaxtyping import Float
from torch import Tensor

from densescan.nets.minkunet import NetConfig, UNet, embed_points
from densescan.sparse.matmul import with_repeating_rows

OFFSETS_PER_POINT = 6
MAX_OFFSET = 1.0  # m; the head ends in tanh


class Refiner(UNet):
    """Predicts six offsets a point, each within 1 m per axis; every offset makes one point of the refined scene."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__(config, out_channels=3 * OFFSETS_PER_POINT)

    def offsets(self, points: Float[Tensor, "B M 3"]) -> Float[Tensor, "B M 18"]:
        """The six offsets of each point side by side [m]."""
        scene = embed_points(points, self.config)
        x = [self.stem(scene.tensor)]
        for i in range(1, 5):
            x.append(self.stage(i, x[-1]))
        y = x.pop()
        for i in range(1, 5):
            skip = x.pop()
            y = self.up(i, y, skip)
            y = self.join(i, y)
        return scene.to_points(y.with_feats(MAX_OFFSET * torch.tanh(with_repeating_rows(self.last, y.feats))))

    def forward(self, points: Float[Tensor, "B M 3"]) -> Float[Tensor, "B L 3"]:
        """points: scene [m], sensor frame. Returns L = 6 M points; those of the same source point are adjacent."""
        offsets = self.offsets(points).unflatten(2, (OFFSETS_PER_POINT, 3))
        return (points[:, :, None] + offsets).flatten(1, 2)
