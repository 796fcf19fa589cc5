"""`densescan evaluate`: methods scored on a split, and their table."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from densescan.cli.console import progress, say
from densescan.cli.options import Command, Device, check_folder, choose_device, make_folder
from densescan.cli.results import Published, table_texts
from densescan.data.split import Split, open_split
from densescan.evaluation.evaluate import Plan, evaluate_together
from densescan.evaluation.measures import MEASURES, check_measures
from densescan.evaluation.measuring import Measurer, measuring
from densescan.evaluation.methods import Method, together
from densescan.evaluation.naming import SYNTAX, parse_methods
from densescan.evaluation.records import Run
from densescan.metrics.nearest import in_float32
from densescan.training.record import environment

Methods = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="METHOD [METHOD ...]", help=f"What to score: {SYNTAX}.")
]


@dataclass(frozen=True)
class SplitOptions:
    """Which frames."""

    sequences: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Sequences of the data; none: all."""
    every: int = 1
    """Take one frame of so many."""
    limit: int | None = None
    """Take so many frames at most, evenly spaced."""
    margin: int = 0
    """Leave out so many frames at either end of each sequence, where its map lacks what no other frame has seen."""

    def open(self, folder: Path) -> Split:
        """The frames of a prepared or simulated folder.

        Raises: InputError: no such folder or sequence, or nothing left.
        """
        return open_split(folder, self.sequences or None, self.every, self.limit, self.margin)


@dataclass(frozen=True)
class ModelOptions:
    """What all models have in common, where it differs from their own defaults."""

    device: Device = "auto"
    """Where models compute, and nearest distances (on a GPU in float32); auto: on the GPU if there is one."""
    steps: int | None = None
    """Sampling steps."""
    guidance_scale: float | None = None
    """Classifier-free guidance."""

    def methods(self, names: tuple[str, ...]) -> list[Method]:
        """The named methods.

        Raises: InputError: a name that means nothing, two methods of one name, or no such device.
        """
        given = {"steps": self.steps, "guidance_scale": self.guidance_scale}
        changes = {name: value for name, value in given.items() if value is not None}
        return parse_methods(names, choose_device(self.device), **changes)


@dataclass(frozen=True)
class Evaluate(Command):
    """Score methods on a split: a record of every frame, and a table with intervals.

    Each method gets OUT/METHOD.jsonl. The same command goes on where an interrupted one stopped.

    Examples:
      densescan evaluate data/validation small bare jitter:0.1 jitter:0.2 --out runs/scores
      densescan evaluate data/kitti small:coarse ours=runs/student/model:steps=4 --out runs/08 --sequences 08 --every 10
      densescan evaluate data/kitti theirs=scenes:results/theirs --out runs/08 --published semantic-kitti
    """

    data: tyro.conf.Positional[Path]
    """A folder that `densescan data prepare` or `densescan data simulate` wrote."""
    methods: tyro.conf.Positional[Methods]
    out: Path
    """Folder of the records."""
    split: Annotated[SplitOptions, tyro.conf.arg(name="")] = field(default_factory=SplitOptions)
    models: Annotated[ModelOptions, tyro.conf.arg(name="")] = field(default_factory=ModelOptions)
    seed: int = 0
    """Of all scenes; each frame draws from a seed of its own made of this one and its name."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = tuple(MEASURES)
    """What to measure; emd takes most of the time."""
    workers: int = max(1, (os.cpu_count() or 2) // 2)
    """Processes that measure while the next scene is made; 0: none, for undisturbed seconds."""
    keep_going: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Record a frame that fails and go on; the method's means are then not computed."""
    published: Published | None = None
    """Show the published rows of a data set below ours."""

    def run(self) -> None:
        """Evaluate every method, then print the table.

        Raises: InputError: a bad option, a record of another evaluation, or a frame that failed.
        """
        metrics = check_measures(self.metrics)
        methods = self.models.methods(self.methods)
        split = self.split.open(self.data)
        check_folder(self.out)
        make_folder(self.out)
        device = choose_device(self.models.device)
        about = {**environment(), "workers": self.workers}
        if in_float32(device):
            about["nearest_distances"] = "float32, on the GPU"
        plan = Plan(self.data.resolve().name, self.seed, metrics, self.keep_going, about)
        with measuring(self.workers, device) as measurer:
            runs = [
                run for group in together(methods) for run in self._evaluate(group, split, plan, measurer)
            ]
        order = [method.name for method in methods]
        runs.sort(key=lambda run: order.index(run.header.method))
        say("\n\n".join(table_texts(runs, self.published)))

    def _evaluate(self, group: list[Method], split: Split, plan: Plan, measurer: Measurer) -> list[Run]:
        records = [(method, self.out / f"{method.file_name}.jsonl") for method in group]
        names = ", ".join(method.name for method in group)
        with progress(names, len(split)) as update:
            return evaluate_together(records, split, plan, measurer, lambda done, _: update(done, ""))
