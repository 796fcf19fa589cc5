"""The networks of one model, whichever of the three it has."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.refiner import Refiner

PREFIXES = {"encoder": "partial_enc.", "denoiser": "model.", "refiner": "model_refine."}
"""Where each network's tensors live in a state dict: the names of the released teacher and refiner."""


@dataclass
class Networks:
    """Encoder and denoiser make a completer; the refiner is optional. Those a model lacks are None."""

    encoder: ConditionEncoder | None = None
    denoiser: Denoiser | None = None
    refiner: Refiner | None = None

    def present(self) -> dict[str, nn.Module]:
        """The networks that exist, by name."""
        every = {"encoder": self.encoder, "denoiser": self.denoiser, "refiner": self.refiner}
        return {name: net for name, net in every.items() if net is not None}

    def map(self, change: Callable[[Any], Any]) -> "Networks":
        """Networks made of each one's change."""
        return Networks(**{name: change(net) for name, net in self.present().items()})

    def with_voxel_size(self, voxel_size: float) -> "Networks":
        """The same networks (sharing their parameters) on voxels of another size [m]."""

        def resized(net: Any) -> Any:
            other = copy.copy(net)
            other.config = replace(net.config, voxel_size=voxel_size)
            return other

        return self.map(resized)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All tensors under the names of the released checkpoints."""
        return {
            PREFIXES[name] + key: value
            for name, net in self.present().items()
            for key, value in net.state_dict().items()
        }

    def eval(self) -> "Networks":
        """Switch every network to inference: batch norm uses its running statistics."""
        for net in self.present().values():
            net.eval()
        return self

    def to(self, device: torch.device | str) -> "Networks":
        """Move every network."""
        for net in self.present().values():
            net.to(device)
        return self
