"""The training loop: steps, logs, averages, validation, checkpoints, resume. Knows no method."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from torch import nn

from densescan.data.dataset import CropDataset
from densescan.data.frames import FrameSource
from densescan.errors import InputError
from densescan.training import record
from densescan.training.batch import Batch
from densescan.training.batch_norm import set_training
from densescan.training.checkpoint import (
    TrainingState,
    digest,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from densescan.training.config import LoopConfig, learning_rate
from densescan.training.curves import Curves
from densescan.training.ema import decay_after, start_averages, update_averages
from densescan.training.engine import Engine
from densescan.training.feed import step_batches
from densescan.training.processes import Processes
from densescan.training.stage import Stage
from densescan.training.stopping import StopRequest
from densescan.training.validation import Clouds, ValidationSet


class Listener:
    """Hears of a run, in the main process; by default it does nothing."""

    def on_step(self, step: int, figures: dict[str, float]) -> None:
        """After every step, with the steps done and the figures of the last one."""

    def on_validation(self, step: int, figures: dict[str, float], clouds: Sequence[Clouds]) -> None:
        """After a validation: its figures, and for some crops the clouds to draw, by caption."""

    def on_stopping(self) -> None:
        """A signal asked the run to stop after this step. Called within a signal handler."""


def fit(
    stage: Stage,
    data: FrameSource | str | Path,
    config: LoopConfig,
    folder: Path,
    *,
    validation: FrameSource | str | Path | None = None,
    listener: Listener | None = None,
) -> dict[str, nn.Module]:
    """Train a stage and return the running averages of its results. Resumes from `folder` where it holds a checkpoint.

    Crops, noise and schedule depend on the seed and on what was done before alone: a resumed run equals an
    uninterrupted one, and on a CPU bit by bit. The folder receives config.json, env.json, metrics.jsonl (a row a
    step, and one for each validation), checkpoints/ and, if asked for, tensorboard/. Under `torchrun` or `accelerate
    launch` all processes call this alike and share the work; only the main one writes. They need one file system.

    Args: stage: networks and objective. data: frames, or a folder, as `CropDataset` takes them. folder: of the run,
        made where it is missing. validation: held-out data of the same kind; None: no validation.
    Returns: the averages by name, in evaluation mode; those of an unfinished run where `max_minutes` ended it.
    Raises: InputError: no data or damaged data, a checkpoint or a configuration of another run, a full disk.
        FloatingPointError: a loss or gradient is not finite; no checkpoint has seen it. KeyboardInterrupt: SIGINT or
        SIGTERM came; a checkpoint was written first, unless a second one came.
    """
    processes = Processes(config.cpu)
    run = _Run(stage, config, folder, processes, listener or Listener())
    dataset = CropDataset(data, stage.crops, config.seed, config.max_steps * config.crops_per_step)
    held_out = None
    if validation is not None:
        held_out = ValidationSet(validation, stage.crops, config.validation_crops, processes)
    run.resume()
    state, left = run.state, config.max_steps - run.state.step
    deadline = math.inf if config.max_minutes is None else time.monotonic() + 60 * config.max_minutes
    steps = step_batches(dataset, config, processes, state.crops, left)
    with closing(run), StopRequest(run.listener.on_stopping) as request, closing(steps):
        began = time.perf_counter()
        for batches in steps:
            run.train(batches, waited=time.perf_counter() - began)
            last = state.step == config.max_steps
            if held_out and (last or state.step % config.validate_every == 0):
                run.validate(held_out)
            interrupted = processes.any(request.asked)
            stopping = last or interrupted or processes.any(time.monotonic() >= deadline)
            if stopping or state.step % config.checkpoint_every == 0:
                run.save()
            if interrupted:
                raise KeyboardInterrupt(
                    f"stopped after step {state.step}; the same command goes on from there"
                )
            if stopping:
                break
            began = time.perf_counter()
    processes.wait()  # for the files of the main one
    return state.averages


class _Run:
    """One run: its stage, its state and its folder."""

    def __init__(
        self, stage: Stage, config: LoopConfig, folder: Path, processes: Processes, listener: Listener
    ) -> None:
        self.stage, self.config, self.folder = stage, config, folder
        self.processes, self.listener = processes, listener if processes.main else Listener()
        networks = {
            f"{name}/{key}": net for name, part in stage.trained.items() for key, net in part.networks.items()
        }
        for net in (*networks.values(), *stage.frozen.values()):
            net.to(processes.device)
        for net in stage.frozen.values():
            net.requires_grad_(False).eval()
        processes.share(networks.values())
        self.engine = Engine(stage.trained, config, processes)
        averages = start_averages(stage.results)
        frozen = {name: digest(net) for name, net in stage.frozen.items()}
        self.state = TrainingState(networks, averages, self.engine.optimisers, config.seed, frozen)
        self.curves: Curves | None = None

    def resume(self) -> None:
        """Restore the newest checkpoint, and bring the run's record into line with it."""
        newest = latest_checkpoint(self.folder / "checkpoints")
        if newest:
            record.check_same_stage(self.folder / "config.json", asdict(self.stage.config))
            load_checkpoint(newest, self.state)
        if self.state.step > self.config.max_steps:
            raise InputError(
                f"{newest} has {self.state.step} steps behind it, more than max_steps = {self.config.max_steps}: "
                "ask for more, or start in another folder"
            )
        if not self.processes.agree(self.state.step):
            raise InputError(
                f"the processes found different checkpoints in {self.folder}: use a folder that all of them share"
            )
        if self.processes.main:
            self._open_record()
        self.processes.wait()
        for part in self.stage.trained.values():
            for key, net in part.networks.items():
                set_training(net, part.statistics.get(key, "updated"))

    def _open_record(self) -> None:
        folder, config = self.folder, self.config
        record.make_folder(folder)
        record.write_json(
            folder / "config.json", {"loop": asdict(config), "stage": asdict(self.stage.config)}
        )
        hardware = {"device": self.processes.device.type, "processes": self.processes.count}
        record.write_json(folder / "env.json", {**record.environment(), **hardware})
        record.forget_metrics_after(folder / "metrics.jsonl", self.state.step)
        if config.tensorboard:
            self.curves = Curves(folder / "tensorboard", self.state.step)

    def train(self, batches: Sequence[Batch], waited: float) -> None:
        """One step of the stage. waited: for its batches [s]."""
        began = time.perf_counter()
        state, engine = self.state, self.engine
        engine.step = state.step
        figures = self.stage.step(batches, engine)
        self.processes.average_buffers(state.networks.values())
        rate = learning_rate(state.step, self.config)
        state.step += 1
        state.crops += self.config.crops_per_step
        update_averages(state.averages, self.stage.results, decay_after(state.step, self.config.ema))
        times = {"seconds": time.perf_counter() - began, "seconds_waiting": waited}
        figures = {**figures, "lr": rate, **times}
        self._log(figures)
        self.listener.on_step(state.step, figures)

    def validate(self, held_out: ValidationSet) -> None:
        """Judge the averages."""
        figures, clouds = held_out.judge(self.stage, self.state.averages, self.engine)
        self._log(figures)
        self.listener.on_validation(self.state.step, figures, clouds)

    def _log(self, figures: dict[str, float]) -> None:
        if self.processes.main:
            record.append_metrics(self.folder / "metrics.jsonl", {"step": self.state.step, **figures})
        if self.curves:
            self.curves.add(self.state.step, figures)

    def save(self) -> None:
        """Write a checkpoint."""
        if self.processes.main:
            save_checkpoint(self.folder / "checkpoints", self.state, self.config.keep)

    def close(self) -> None:
        """Write the last of the curves."""
        if self.curves:
            self.curves.close()
