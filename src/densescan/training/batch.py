"""What a stage is given and gives back: a batch of crops with their random numbers, a loss, what validation found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from densescan.data.dataset import Crop
from densescan.training.draws import Draws


class Batch(NamedTuple):
    """This process's crops of a batch, on its device, and the random numbers that belong to them."""

    crop: Crop
    """The crops, stacked; B is at least 1."""
    draws: Draws
    """Their random numbers, in the same order."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self._replace(crop=Crop(*(part.to(device) for part in self.crop)))

    def chosen(self, rows: Sequence[int]) -> "Batch":
        """Some of its crops, with the same random numbers."""
        return Batch(Crop(*(part[list(rows)] for part in self.crop)), self.draws.chosen(rows))

    def singly(self) -> "list[Batch]":
        """Its crops as batches of one, likewise; views, where `chosen` copies."""
        crops = [Crop(*(part[i : i + 1] for part in self.crop)) for i in range(len(self.draws))]
        return [Batch(crop, self.draws.chosen([i])) for i, crop in enumerate(crops)]


class Loss(NamedTuple):
    """The loss of one batch, and figures to log."""

    total: Float[Tensor, ""] | None
    """The mean of the losses of its crops, with gradient. A crop that is left out counts as zero: divide by all of
    them, so that crops weigh the same in every batch and process. None: all are left out."""
    figures: Mapping[str, float | Tensor]
    """Means over the batch; the same names in every batch and process. Tensors are read when all gradients are there,
    so that no loss waits for the GPU."""


@dataclass(frozen=True)
class Validation:
    """What one held-out crop says of a stage."""

    figures: Mapping[str, float]
    """The same names for every crop; their means over crops are logged."""
    clouds: Mapping[str, Float[Tensor, "_ 3"]] = field(default_factory=dict)
    """What to draw, by caption [m], sensor frame; the last one is the truth."""


def mean_figures(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over rows of the same names; empty where there is no row.

    Raises: KeyError: a row lacks a figure that another has.
    """
    rows = list(rows)
    names = {name: None for row in rows for name in row}
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}
