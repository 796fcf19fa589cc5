"""What the training loop asks of a stage."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from densescan.data.dataset import Crop, CropConfig


@runtime_checkable
class Stage(Protocol):
    """A stage owns its networks and knows its loss; the loop owns optimiser, schedule, averages and files."""

    networks: dict[str, nn.Module]
    """Trained modules by the name under which they are saved."""
    crops: CropConfig
    """The samples it trains on."""
    config: Any
    """A frozen dataclass, the whole of the stage's choices; it goes into the run folder."""

    def loss(self, batch: Crop, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, with gradient, and the figures to log. All randomness comes from `generator`."""
        ...
