"""Held-out crops, always the same, and what a completion of each is worth: what all studies judge by."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate

from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.data.dataset import CropConfig, CropDataset
from densescan.metrics.jsd import JensenShannon3D
from densescan.nets.networks import Networks
from densescan.training.batch import Batch
from densescan.training.crop_distance import chamfer_in_crop, within
from densescan.training.draws import Draws

SEED = 20_250_411
"""Of the crops and of their noise: all models of all studies complete the same ones, so that differences are paired."""


class Judge:
    """Completes held-out crops.

    Args: folder: held-out data. crops: what is cut from it. size: how many crops.
    """

    def __init__(self, folder: Path, crops: CropConfig, size: int) -> None:
        dataset = CropDataset(folder, crops, SEED, size)
        self.batches = [Batch(default_collate([dataset[i]]), Draws(SEED, [i])) for i in range(size)]

    @torch.inference_mode()
    def __call__(
        self, nets: Mapping[str, nn.Module], completion: CompletionConfig, steps: int
    ) -> dict[str, list[float]]:
        """Chamfer distance [m] and JSD in cubes of 0.5 m of each crop, of what lies within its radius.

        Args: nets: encoder and denoiser. completion: how they sample. steps: how often.
        """
        config = replace(completion, steps=steps)
        completer = Completer(Networks(**nets), config)  # type: ignore[arg-type]
        cd, jsd = [], []
        for batch in self.batches:
            noise = batch.draws.noise(f"{steps} steps")
            scene = completer.sample(batch.crop.scan, config, noise)[0]
            cd.append(chamfer_in_crop(scene, batch).total.item())
            truth = batch.crop.truth[0]
            pair = (cloud[within(cloud, batch)].numpy() for cloud in (scene, truth))
            jsd.append(float(JensenShannon3D().measure(*pair)))
        return {"cd": cd, "jsd": jsd}


def mean(figures: Mapping[str, list[float]], name: str) -> float:
    """Of one figure, over the crops."""
    return float(np.mean(figures[name]))


def with_interval(differences: np.ndarray) -> str:
    """Mean of paired differences with its 95 % interval, all taken as independent."""
    half = 1.96 * differences.std(ddof=1) / math.sqrt(differences.size)
    mean = differences.mean()
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"
