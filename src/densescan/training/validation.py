"""Validation: what a fixed set of held-out crops says of the running averages."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from densescan.data.dataset import Crop, CropConfig, CropDataset
from densescan.data.frames import FrameSource
from densescan.errors import InputError
from densescan.training.batch import Batch, mean_figures
from densescan.training.batch_norm import evaluating
from densescan.training.draws import Draws
from densescan.training.ema import exchanged
from densescan.training.engine import Engine
from densescan.training.processes import Processes
from densescan.training.stage import Stage

VALIDATION_SEED = 20_250_411
"""Of the held-out crops and of the noise they are judged with, whatever the seed of a run: runs compare."""
DRAWN_CROPS = 3
"""The first crops of the set are those whose clouds are handed on to be drawn."""

Clouds = Mapping[str, Tensor]


class ValidationSet:
    """Held-out crops, cut once and then kept in memory; the processes share the work.

    Args: source: held-out frames, or their folder, as `CropDataset` takes them. crops: what is cut from them. size: how
        many.
    Raises: InputError: no data, or damaged data; fewer crops than processes.
    """

    def __init__(
        self, source: FrameSource | str | Path, crops: CropConfig, size: int, processes: Processes
    ) -> None:
        if size < processes.count:
            raise InputError(
                f"expected a validation crop for each of {processes.count} processes, got {size}: use more"
            )
        self._processes = processes
        self._dataset: CropDataset | None = CropDataset(source, crops, VALIDATION_SEED, size)
        self._own = range(processes.index, size, processes.count)
        self._crops: dict[int, Crop] = {}

    def judge(
        self, stage: Stage, averages: Mapping[str, nn.Module], engine: Engine
    ) -> tuple[dict[str, float], list[Clouds]]:
        """The mean figures over all crops, under names that begin with `validation/`, and in the main process the
        clouds of the first few. Training goes on as if nothing had happened.
        """
        self._cut()
        processes = self._processes
        nets = [net for part in stage.trained.values() for net in part.networks.values()]
        rows: list[dict[str, float]] = []
        clouds: list[Clouds] = []
        with exchanged(averages, stage.results), evaluating(*nets), torch.no_grad(), engine.autocast():
            for i, crop in self._crops.items():
                draws = Draws(VALIDATION_SEED, [i])  # begin anew every time
                found = stage.validate(Batch(crop, draws).to(engine.device))
                rows.append({"crops": 1.0, **found.figures})
                if processes.main and len(clouds) < DRAWN_CROPS:
                    clouds.append(found.clouds)
        sums = {name: mean * len(rows) for name, mean in mean_figures(rows).items()}
        totals = processes.sum_figures(sums)
        count = totals.pop("crops")
        return {f"validation/{name}": total / count for name, total in totals.items()}, clouds

    def _cut(self) -> None:
        """Cut this process's crops, and let go of the frames they come from."""
        if self._dataset is not None:
            self._crops = {i: default_collate([self._dataset[i]]) for i in self._own}
            self._dataset = None
