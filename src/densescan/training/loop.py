"""The training loop: steps, logs, averages, checkpoints, resume. Knows no method."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from densescan.data.dataset import Crop, CropDataset
from densescan.errors import InputError
from densescan.training import record
from densescan.training.checkpoint import MAX_STEP, latest_checkpoint, load_checkpoint, save_checkpoint
from densescan.training.ema import decay_after, start_averages, update_averages
from densescan.training.stage import Stage

OnStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train.

    Raises: InputError: a value outside its range.
    """

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
    """Of crops and noise; the initial weights are those of the stage."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16, 2x faster where the hardware has it; sums, norms, losses, weights stay float32."""
    workers: int = 1
    """Processes that prepare crops; 0: none."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        rules = {
            f"1 <= max_steps <= {MAX_STEP}": 1 <= self.max_steps <= MAX_STEP,
            "max_minutes of at least 0, or none": self.max_minutes is None or self.max_minutes >= 0,
            "batch_size and checkpoint_every of at least 1": min(self.batch_size, self.checkpoint_every) >= 1,
            "lr and clip above 0": min(self.lr, self.clip) > 0,
            "0 <= ema < 1": 0 <= self.ema < 1,
            "seed, workers and warmup_steps of at least 0": min(self.seed, self.workers, self.warmup_steps)
            >= 0,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise InputError(f"expected training with {'; '.join(broken)}, got {self}: change these values")


def fit(
    stage: Stage, data: str | Path, config: LoopConfig, folder: Path, on_step: OnStep | None = None
) -> dict[str, nn.Module]:
    """Train a stage and return the running averages of its networks. Resumes from `folder` where it holds a checkpoint.

    Crops, noise and schedule depend on (seed, step) alone, so that a resumed run equals an uninterrupted one. The
    folder receives config.json, env.json, metrics.jsonl (a row a step) and checkpoints/.

    Args: stage: networks and loss. data: a folder as `CropDataset` reads it. folder: of the run, made where it is
        missing. on_step: called after every step with the steps done and the figures of the last one.
    Returns: the averages by name, in evaluation mode; those of an unfinished run where `max_minutes` ended it.
    Raises: InputError: no data or damaged data, a checkpoint or a configuration of another run, a full disk.
        FloatingPointError: loss or gradient is not finite; no checkpoint has seen it.
    """
    dataset = CropDataset(data, stage.crops, config.seed, config.max_steps * config.batch_size)
    averages = start_averages(stage.networks)
    parameters = [p for net in stage.networks.values() for p in net.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=config.lr)
    step = _resume(stage, averages, optimiser, config, folder)
    deadline = math.inf if config.max_minutes is None else time.monotonic() + 60 * config.max_minutes
    for batch in _batches(dataset, config, step):
        _set_rate(optimiser, learning_rate(step, config))
        generator = torch.Generator().manual_seed(_step_seed(config.seed, step))
        logs = _train_step(stage, batch, optimiser, parameters, config, generator)
        step += 1
        update_averages(averages, stage.networks, decay_after(step, config.ema))
        record.append_metrics(folder / "metrics.jsonl", {"step": step, **logs})
        if on_step:
            on_step(step, logs)
        stopping = step == config.max_steps or time.monotonic() >= deadline
        if stopping or step % config.checkpoint_every == 0:
            save_checkpoint(folder / "checkpoints", step, stage.networks, averages, optimiser)
        if stopping:
            break
    return averages


def _resume(
    stage: Stage,
    averages: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    config: LoopConfig,
    folder: Path,
) -> int:
    """Restore the newest checkpoint, bring the run's record into line with it, and return the steps done."""
    step, newest = 0, latest_checkpoint(folder / "checkpoints")
    if newest:
        record.check_same_stage(folder / "config.json", asdict(stage.config))
        step = load_checkpoint(newest, stage.networks, averages, optimiser)
    if step > config.max_steps:
        raise InputError(
            f"{newest} has {step} steps behind it, more than max_steps = {config.max_steps}: "
            "ask for more, or start in another folder"
        )
    record.make_folder(folder)
    record.write_json(folder / "config.json", {"loop": asdict(config), "stage": asdict(stage.config)})
    record.write_json(folder / "env.json", record.environment())
    record.forget_metrics_after(folder / "metrics.jsonl", step)
    for net in stage.networks.values():
        net.train()
    return step


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
    _check_finite("loss", loss.item())
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip).item()
    _check_finite("norm of the gradient", norm)
    optimiser.step()
    seconds = time.perf_counter() - began
    return {**logs, "grad_norm": norm, "lr": optimiser.param_groups[0]["lr"], "seconds": seconds}


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {value}; the last checkpoint is sound: resume with a lower lr"
        )


class _Batches(Dataset[Crop | InputError]):
    """Batch s is made of crops s * batch_size and following.

    A user's mistake is handed over as a value: raised in a worker, it would come back wrapped in a traceback.
    """

    def __init__(self, crops: CropDataset, batch_size: int) -> None:
        self.crops, self.batch_size = crops, batch_size

    def __getitem__(self, step: int) -> Crop | InputError:
        first = step * self.batch_size
        try:
            batch: Crop = default_collate([self.crops[i] for i in range(first, first + self.batch_size)])
        except InputError as error:
            return error
        return batch


def _batches(dataset: CropDataset, config: LoopConfig, first_step: int) -> Iterator[Crop]:
    loader: DataLoader[Crop | InputError] = DataLoader(
        _Batches(dataset, config.batch_size),
        batch_size=None,
        sampler=range(first_step, config.max_steps),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        multiprocessing_context="spawn" if config.workers else None,  # forked OpenMP threads deadlock
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def learning_rate(step: int, config: LoopConfig) -> float:
    """The rate of step 0, 1, ...: a linear rise to config.lr over the warm-up, then half a cosine towards zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
