"""What the training loop asks of a stage."""

from typing import Protocol

import torch
from torch import Tensor, nn

from densescan.data.dataset import Crop, CropConfig


class Stage(Protocol):
    """A stage owns its networks and knows its loss; the loop owns optimiser, schedule, averages and files.

    networks: trained modules by the name under which they are saved. crops: the samples it trains on.
    """

    networks: dict[str, nn.Module]
    crops: CropConfig

    def loss(self, batch: Crop, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, with gradient, and the figures to log. All randomness comes from `generator`."""
        ...
