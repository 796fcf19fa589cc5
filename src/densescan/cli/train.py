"""`densescan train`: the networks of a model, one stage a command."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import tyro
from jaxtyping import Float32

from densescan.cli.console import Update, complain, duration, progress, rows, say
from densescan.cli.options import Command, check_folder, make_folder, option_value, with_defaults
from densescan.cli.training_data import TrainingData
from densescan.completion import CompletionConfig
from densescan.nets.networks import Networks
from densescan.recipes.catalogue import RECIPES, find_recipe
from densescan.recipes.recipe import Recipe, StageName
from densescan.training.config import LoopConfig
from densescan.training.loop import Listener, fit
from densescan.training.processes import Processes
from densescan.training.refinement import RefinementStage, RefinerConfig
from densescan.training.stage import Stage
from densescan.training.teacher import TeacherConfig, TeacherStage
from densescan.training.validation import Clouds
from densescan.viewer.render import render_sheet
from densescan.viewer.splat import Birdseye
from densescan.weights.folder import save_model

PICTURE_REACH = 25.0
"""From the middle of a crop to the edge of its picture [m]."""


def recipe_option(stage: StageName) -> object:
    """How `--recipe` of a stage is shown."""
    known = ", ".join(RECIPES[stage])
    return tyro.conf.arg(
        metavar="NAME", help=f"What the other options default to: {known}. See `densescan recipes`."
    )


@dataclass(frozen=True)
class Teacher(Command):
    """Train the teacher: condition encoder and denoiser.

    The same command goes on with an interrupted run; Ctrl-C saves the run after its step. At the end, also when the
    time is up, the running averages of the weights are written as a model folder, OUT/model.

    Examples:
      densescan train teacher --data data/train --out runs/teacher --max-minutes 30
      densescan train teacher --data data/train --out runs/teacher --validation data/held-out --tensorboard
      densescan train teacher --data simulator --streets.sensor os1-128 --out runs/ouster --workers 4
      densescan train teacher --data data/train --out runs/wide --net.width 1.0 --max-steps 20000
      densescan train teacher --data data/train --out runs/released --recipe released

    Several GPUs, or several nodes (the same command on each, with its --node-rank or --machine_rank), share each batch:
      torchrun --nproc-per-node 4 --no-python densescan train teacher --batch-size 8 --data ... --out ...
      accelerate launch --multi_gpu --num_machines 2 --num_processes 8 --machine_rank 0 --main_process_ip HOST \\
        --main_process_port 29500 --no_python densescan train teacher --batch-size 8 --data ... --out ...
    """

    data: Annotated[TrainingData, tyro.conf.arg(name="")]
    out: Path
    """The run's folder."""
    recipe: Annotated[str, recipe_option("teacher")] = "small"
    stage: Annotated[TeacherConfig, tyro.conf.arg(name="")] = field(default_factory=TeacherConfig)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Teacher]":
        """This command with the defaults of the recipe that the arguments name."""
        recipe = chosen_recipe("teacher", args)
        return with_defaults(cls, stage=recipe.config, loop=recipe.loop)

    def run(self) -> None:
        """Train and write the model.

        Raises: InputError: no data, or a run of another form. FloatingPointError: the loss is not finite.
        """
        completion = find_recipe("teacher", self.recipe).completion
        train(lambda: TeacherStage(self.stage), self, lambda _: completion)


@dataclass(frozen=True)
class Refiner(Command):
    """Train the refiner, which makes six points of one.

    The same command goes on with an interrupted run; Ctrl-C saves the run after its step. At the end, also when the
    time is up, the running averages of the weights are written as a model folder, OUT/model. Several GPUs or nodes: see
    `densescan train teacher --help`.

    Examples:
      densescan train refiner --data data/train --out runs/refiner --max-minutes 30
      densescan train refiner --data data/train --out runs/refiner --max-jitter 0.3 --lr 5e-4
      densescan train refiner --recipe small-tuning --data data/train --out runs/tuned
    """

    data: Annotated[TrainingData, tyro.conf.arg(name="")]
    out: Path
    """The run's folder."""
    recipe: Annotated[str, recipe_option("refiner")] = "small"
    stage: Annotated[RefinerConfig, tyro.conf.arg(name="")] = field(default_factory=RefinerConfig)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Refiner]":
        """This command with the defaults of the recipe that the arguments name."""
        recipe = chosen_recipe("refiner", args)
        return with_defaults(cls, stage=recipe.config, loop=recipe.loop)

    def run(self) -> None:
        """Train and write the model.

        Raises: InputError: no data, or a run of another form. FloatingPointError: the loss is not finite.
        """
        train(lambda: RefinementStage(self.stage), self, lambda _: CompletionConfig())


@runtime_checkable
class Run(Protocol):
    """What every command of training is given."""

    @property
    def data(self) -> TrainingData: ...
    @property
    def out(self) -> Path: ...
    @property
    def loop(self) -> LoopConfig: ...


S = TypeVar("S", bound=Stage)


def train(make_stage: Callable[[], S], command: Run, completion: Callable[[S], CompletionConfig]) -> None:
    """Train a stage with a progress bar and write OUT/model.

    make_stage: makes the networks, whose initial weights the seed of the loop decides. completion: of the model.
    """
    data, out, loop = command.data, command.out, command.loop
    check_folder(out)
    frames, held_out = data.open()
    main = Processes(loop.cpu).main
    torch.manual_seed(loop.seed)
    stage = make_stage()
    title = f"train {', '.join(stage.results)}"
    with progress(title, loop.max_steps) if main else nullcontext(lambda done, note: None) as update:
        watcher = _Watcher(update, out, loop)
        try:
            averages = fit(stage, frames, loop, out, validation=held_out, listener=watcher)
        except KeyboardInterrupt as stopped:
            if main and str(stopped):
                complain(str(stopped))
            raise
    if main:
        model = out / "model"
        save_model(model, Networks(**averages), completion(stage), _card(stage, data, loop))  # type: ignore[arg-type]
        say(rows({"run": str(out), "last step": watcher.last_step, "model": str(model)}))


class _Watcher(Listener):
    """Shows how far the run is, and draws what validation completes."""

    def __init__(self, update: Update, out: Path, loop: LoopConfig) -> None:
        self._update, self._pictures = update, out / "pictures"
        self._limit = "" if loop.max_minutes is None else f", at most {duration(60 * loop.max_minutes)}"
        self._step, self.last_step = 0, "none: the run was complete"

    def on_step(self, step: int, figures: dict[str, float]) -> None:
        self._step, self.last_step = step, f"{step:,}, loss {figures['loss']:.4f}"
        self._update(step, f"loss {figures['loss']:.4f}{self._limit}")

    def on_validation(self, step: int, figures: dict[str, float], clouds: Sequence[Clouds]) -> None:
        make_folder(self._pictures)
        columns = {name: [_seen_from_its_middle(crop, name) for crop in clouds] for name in clouds[0]}
        names = [f"crop {i + 1}" for i in range(len(clouds))]
        shown = ", ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in figures.items())
        render_sheet(
            columns,
            self._pictures / f"step-{step:07d}.png",
            rows=names,
            view=Birdseye(half_width=PICTURE_REACH),
            title=f"step {step:,}: {shown}",
        )

    def on_stopping(self) -> None:
        self._update(self._step, "stopping after this step; Ctrl-C again: at once")


def _seen_from_its_middle(crop: Clouds, name: str) -> Float32[np.ndarray, "N 3"]:
    """A cloud of a crop with the middle of the truth, in the ground plane, at the origin; finite points alone."""
    *_, truth = crop.values()
    middle = truth.float().mean(0)
    middle[2] = 0
    points = crop[name].float() - middle
    return points[points.isfinite().all(1)].cpu().numpy()


def _card(stage: Stage, data: TrainingData, loop: LoopConfig) -> str:
    return (
        f"# Trained {' and '.join(stage.results)}\n\nTrained on {data.describe()}: at most {loop.max_steps} steps "
        f"of {loop.crops_per_step} crops, learning rate {loop.lr:g}, seed {loop.seed}.\n"
    )


def chosen_recipe(stage: StageName, args: Sequence[str]) -> Recipe:
    """The recipe that the arguments name, or the small one.

    Raises: InputError: there is no such recipe.
    """
    return find_recipe(stage, option_value(args, "--recipe") or "small")
