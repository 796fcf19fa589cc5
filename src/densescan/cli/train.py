"""`densescan train`: the networks of a model, one stage a command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from densescan import recipes
from densescan.cli.console import duration, progress, rows, say
from densescan.cli.options import Command, check_folder, option_value, with_defaults
from densescan.completer import CompletionConfig
from densescan.errors import InputError
from densescan.nets.networks import Networks
from densescan.training.loop import LoopConfig, fit
from densescan.training.refinement import RefinementStage, RefinerConfig
from densescan.training.stage import Stage
from densescan.training.teacher import TeacherConfig, TeacherStage
from densescan.weights.folder import save_model
from densescan.weights.official import LIDIFF_COMPLETION

TeacherRecipe = Literal["small", "released"]
RefinerRecipe = Literal["small", "small-tuning", "released"]

TEACHERS = {
    "small": (recipes.SMALL_TEACHER, recipes.SMALL_TEACHER_LOOP, recipes.SMALL_COMPLETION),
    "released": (TeacherConfig(), LoopConfig(), LIDIFF_COMPLETION),
}
REFINERS = {
    "small": (recipes.SMALL_REFINER, recipes.SMALL_REFINER_LOOP),
    "small-tuning": (recipes.SMALL_REFINER_TUNING, recipes.SMALL_REFINER_TUNING_LOOP),
    "released": (RefinerConfig(), LoopConfig()),
}


@dataclass(frozen=True)
class Teacher(Command):
    """Train the teacher: condition encoder and denoiser.

    The same command goes on with an interrupted run. At the end, also when the time is up, the running averages of the
    weights are written as a model folder, OUT/model.

    Examples:
      densescan train teacher --data data/train --out runs/teacher --max-minutes 30
      densescan train teacher --data data/train --out runs/wide --net.width 1.0 --max-steps 20000
      densescan train teacher --data data/train --out runs/released --recipe released
    """

    data: Path
    """Training data, as `densescan data simulate` writes it."""
    out: Path
    """The run's folder."""
    recipe: TeacherRecipe = "small"
    """What the other options default to: the bundled model's form, or the released one."""
    stage: Annotated[TeacherConfig, tyro.conf.arg(name="")] = field(default_factory=TeacherConfig)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Teacher]":
        """This command with the defaults of the recipe that the arguments name."""
        stage, loop, _ = TEACHERS[_recipe(args, TEACHERS)]
        return with_defaults(cls, stage=stage, loop=loop)

    def run(self) -> None:
        """Train and write the model.

        Raises: InputError: no data, or a run of another form. FloatingPointError: the loss is not finite.
        """
        *_, completion = TEACHERS[self.recipe]
        train(lambda: TeacherStage(self.stage), self.data, self.out, self.loop, completion)


@dataclass(frozen=True)
class Refiner(Command):
    """Train the refiner, which makes six points of one.

    The same command goes on with an interrupted run. At the end, also when the time is up, the running averages of the
    weights are written as a model folder, OUT/model.

    Examples:
      densescan train refiner --data data/train --out runs/refiner --max-minutes 30
      densescan train refiner --data data/train --out runs/refiner --max-jitter 0.3 --lr 5e-4
      densescan train refiner --recipe small-tuning --data data/train --out runs/tuned
    """

    data: Path
    """Training data, as `densescan data simulate` writes it."""
    out: Path
    """The run's folder."""
    recipe: RefinerRecipe = "small"
    """What the other options default to: the bundled model's form, or the released one."""
    stage: Annotated[RefinerConfig, tyro.conf.arg(name="")] = field(default_factory=RefinerConfig)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Refiner]":
        """This command with the defaults of the recipe that the arguments name."""
        stage, loop = REFINERS[_recipe(args, REFINERS)]
        return with_defaults(cls, stage=stage, loop=loop)

    def run(self) -> None:
        """Train and write the model.

        Raises: InputError: no data, or a run of another form. FloatingPointError: the loss is not finite.
        """
        train(lambda: RefinementStage(self.stage), self.data, self.out, self.loop, CompletionConfig())


def train(
    make_stage: Callable[[], Stage], data: Path, out: Path, loop: LoopConfig, completion: CompletionConfig
) -> None:
    """Train a stage with a progress bar and write OUT/model.

    make_stage: makes the networks, whose initial weights the seed of the loop decides. completion: saved with them.
    """
    check_folder(out)
    torch.manual_seed(loop.seed)
    stage = make_stage()
    done = {"step": 0, "loss": float("nan")}
    limit = "" if loop.max_minutes is None else f", at most {duration(60 * loop.max_minutes)}"
    with progress(f"train {', '.join(stage.networks)}", loop.max_steps) as update:

        def on_step(step: int, logs: dict[str, float]) -> None:
            done.update(step=step, loss=logs["loss"])
            update(step, f"loss {logs['loss']:.4f}{limit}")

        averages = fit(stage, data, loop, out, on_step)
    model = out / "model"
    save_model(model, Networks(**averages), completion, _card(stage, data, loop))  # type: ignore[arg-type]
    last = f"{done['step']:,}, loss {done['loss']:.4f}" if done["step"] else "none: the run was complete"
    say(rows({"run": str(out), "last step": last, "model": str(model)}))


def _card(stage: Stage, data: Path, loop: LoopConfig) -> str:
    return (
        f"# Trained {' and '.join(stage.networks)}\n\nTrained on {data.resolve().name}: at most {loop.max_steps} steps "
        f"of {loop.batch_size} crops, learning rate {loop.lr:g}, seed {loop.seed}.\n"
    )


def _recipe(args: Sequence[str], known: Mapping[str, object]) -> str:
    name = option_value(args, "--recipe") or "small"
    if name not in known:
        raise InputError(f"unknown recipe {name}: known are {', '.join(known)}")
    return name
