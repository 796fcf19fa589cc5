"""The training loop: steps, logs, averages, checkpoints, resume. Knows no method."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from densescan.data.dataset import Crop, CropDataset
from densescan.errors import InputError
from densescan.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint, write_json
from densescan.training.stage import Stage

OnStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train."""

    max_steps: int = 4000
    """Optimiser steps of the whole run; the learning rate falls to zero over them."""
    max_minutes: float | None = None
    """Stop after this time in this process; the same command later goes on from there."""
    batch_size: int = 2
    """Crops a step."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    warmup_steps: int = 200
    """The learning rate rises to its peak over these steps, then falls as a cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the running average of the weights; the average is what is saved as the result."""
    seed: int = 0
    """Of initial weights, crops and noise."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16 (sums, norms, losses and weights stay float32): 2x faster where the hardware has it."""
    workers: int = 1
    """Processes that prepare crops; 0: none."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""


def fit(
    stage: Stage, data: str | Path, config: LoopConfig, folder: Path, on_step: OnStep | None = None
) -> dict[str, nn.Module]:
    """Train a stage and return the running averages of its networks. Resumes from `folder` where it holds a checkpoint.

    Crops, noise and schedule depend on (seed, step) alone, so that a resumed run equals an uninterrupted one.
    on_step: called after every step with the steps done and the figures of the last one.
    Raises: InputError: no data, a checkpoint of other networks. FloatingPointError: the loss is not finite.
    """
    averages = {name: copy.deepcopy(net).requires_grad_(False) for name, net in stage.networks.items()}
    parameters = [p for net in stage.networks.values() for p in net.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=config.lr)
    checkpoints = folder / "checkpoints"
    newest = latest_checkpoint(checkpoints)
    step = load_checkpoint(newest, stage.networks, averages, optimiser) if newest else 0
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"loop": asdict(config), "stage": _plain(stage)})
    dataset = CropDataset(data, stage.crops, config.seed, config.max_steps * config.batch_size)
    deadline = time.monotonic() + 60 * (config.max_minutes or math.inf)
    for batch in _batches(dataset, config, step):
        _set_rate(optimiser, _rate(step, config))
        generator = torch.Generator().manual_seed(_step_seed(config.seed, step))
        logs = _train_step(stage, batch, optimiser, parameters, config, generator)
        step += 1
        _average(averages, stage.networks, min(config.ema, step / (step + 10)))
        _log(folder / "metrics.jsonl", {"step": step, **logs})
        if on_step:
            on_step(step, logs)
        stopping = step == config.max_steps or time.monotonic() > deadline
        if stopping or step % config.checkpoint_every == 0:
            save_checkpoint(checkpoints, step, stage.networks, averages, optimiser)
        if stopping:
            break
    return averages


def _train_step(
    stage: Stage,
    batch: Crop,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    config: LoopConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    began = time.perf_counter()
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
        loss, logs = stage.loss(batch, generator)
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"the loss is {loss.item()}; the last checkpoint is sound: resume with a lower lr")
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip)
    optimiser.step()
    return {**logs, "grad_norm": norm.item(), "lr": optimiser.param_groups[0]["lr"], "seconds": time.perf_counter() - began}


def _batches(dataset: CropDataset, config: LoopConfig, first_step: int) -> DataLoader[Crop]:
    indices = range(first_step * config.batch_size, len(dataset))
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        sampler=indices,  # type: ignore[arg-type]
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        multiprocessing_context="spawn" if config.workers else None,  # forked OpenMP threads deadlock
    )


def _rate(step: int, config: LoopConfig) -> float:
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


@torch.no_grad()
def _average(averages: dict[str, nn.Module], networks: dict[str, nn.Module], decay: float) -> None:
    """averages = decay * averages + (1 - decay) * networks; buffers (running statistics) are copied."""
    for name, net in networks.items():
        for mean, value in zip(averages[name].parameters(), net.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, buffer in zip(averages[name].buffers(), net.buffers(), strict=True):
            kept.copy_(buffer)


def _log(path: Path, row: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _plain(stage: Stage) -> dict[str, Any]:
    return asdict(getattr(stage, "config"))  # noqa: B009


__all__ = ["InputError", "LoopConfig", "fit"]
