"""Seconds and peak memory of a training step of every stage, split into data, generation, ranking and networks.

    python benchmarks/training.py --record benchmarks/results/training.json              # the bundled model's size
    python benchmarks/training.py --width 1.0 --record benchmarks/results/training-wide.json

Each stage runs in a process of its own, without workers unless --workers says otherwise, so that drawing a crop counts
in full. Without --data two streets are simulated first. --width trains the released form at that width from random
weights: its scenes stay scattered over a metre, which is more voxels than a trained student fills, so the seconds are
an upper bound.

data: cutting the crops, or waiting for those who do. generation: sampling the student, or completing with the
reference, without gradient. ranking: the metric that tells winner from loser. networks: all forward and backward passes
and the optimiser's steps; with the structural loss, or the refiner's, their neighbour searches, too.
"""

import datetime
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from densescan.completion import CompletionConfig
from densescan.data.dataset import CropConfig, CropDataset
from densescan.data.simulator import simulate_sequence, write_sequence
from densescan.nets.minkunet import NetConfig
from densescan.training.batch_norm import set_training
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig, DiffusionDpoStage
from densescan.training.distillation import CROPS
from densescan.training.distillation_dpo import DistillationDpoConfig, DistillationDpoStage
from densescan.training.engine import Engine
from densescan.training.feed import step_batches
from densescan.training.processes import Processes
from densescan.training.record import environment, write_json
from densescan.training.refinement import RefinementStage, RefinerConfig
from densescan.training.score_distillation import ScoreDistillationConfig, ScoreDistillationStage
from densescan.training.stage import Stage
from densescan.training.teacher import TeacherConfig, TeacherStage
from densescan.weights.folder import DEFAULT_TEACHER, ModelConfig, build, read_model, save_model

StageName = Literal["teacher", "refinement", "diffusion_dpo", "score_distillation", "distillation_dpo"]
STAGES: tuple[StageName, ...] = (
    "teacher",
    "refinement",
    "diffusion_dpo",
    "score_distillation",
    "distillation_dpo",
)
PARTS = ("data", "generation", "ranking", "networks")
SIMULATED = 9200
"""Seed of the first simulated street."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: str = DEFAULT_TEACHER
    """Model that the stages start from: a bundled name or a folder."""
    width: float | None = None
    """Train the released form at this width, from random weights, instead."""
    data: Path | None = None
    """Prepared or simulated data; two streets are simulated where none is given."""
    stages: tuple[StageName, ...] = STAGES
    """Which stages."""
    steps: int = 8
    """Steps that are timed, after one that is not; the median counts."""
    batch_size: int = 1
    """Crops a step."""
    scan_points: int = 1000
    """Points of the scan within a crop's radius."""
    truth_points: int = 20_000
    """True points of a crop."""
    repeat: int = 10
    """K: copies of each point of the scan."""
    student_steps: tuple[int, ...] = (1, 2, 4, 8)
    """Sampling steps of the student, drawn for each crop."""
    steps_of_pairs: int = 8
    """Sampling steps of the reference's completions (Diffusion-DPO)."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16, as training does by default."""
    cpu: bool = True
    """Measure the processor even where there is a GPU."""
    threads: int | None = None
    """Threads of the processor; None: PyTorch's choice."""
    workers: int = 0
    """Processes that cut the crops of the steps to come; 0: every step cuts its own."""
    record: Path | None = None
    """Write everything to this JSON file."""

    @property
    def crops(self) -> CropConfig:
        """The crops of all stages, so that their rows compare."""
        return replace(CROPS, scan_points=self.scan_points, truth_points=self.truth_points)


@dataclass(frozen=True)
class Row:
    """A stage: medians over steps [s], and the most memory its process had [MiB]."""

    stage: StageName
    seconds: float
    """Of a step, cutting its crops included."""
    data: float
    generation: float
    ranking: float
    networks: float
    megabytes: float
    """Resident memory, Python, libraries and weights included."""
    gpu_megabytes: float
    """Allocated on the GPU; 0 without one."""


def make_stage(name: StageName, model: str, options: Options) -> Stage:
    """The stage as its defaults have it, on the model's networks and these crops."""
    crops, repeat = options.crops, options.repeat
    _, form = read_model(model)
    net = form.net or NetConfig()
    distilled: dict[str, Any] = {"teacher": model, "student_steps": options.student_steps, "head_start": 0}
    makers: dict[StageName, Callable[[], Stage]] = {
        "teacher": lambda: TeacherStage(TeacherConfig(net=net, crops=crops)),
        "refinement": lambda: RefinementStage(
            RefinerConfig(net=form.refiner or replace(net, see_scan=False), crops=crops, repeat=repeat)
        ),
        "diffusion_dpo": lambda: DiffusionDpoStage(
            DiffusionDpoConfig(teacher=model, crops=crops, repeat=repeat, steps=options.steps_of_pairs)
        ),
        "score_distillation": lambda: ScoreDistillationStage(
            ScoreDistillationConfig(crops=crops, repeat=repeat, **distilled)
        ),
        "distillation_dpo": lambda: DistillationDpoStage(
            DistillationDpoConfig(crops=crops, repeat=repeat, **distilled)
        ),
    }
    return makers[name]()


class Stopwatch:
    """Seconds spent in methods of a stage, by part."""

    def __init__(self, stage: Stage, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        for method, part in {"generate": "generation", "rank": "ranking", "pairs": "pairs"}.items():
            if hasattr(stage, method):
                setattr(stage, method, self._timed(getattr(stage, method), part))

    def now(self) -> float:
        """The time, when the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _timed(self, work: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = self.now()
            result = work(*arguments)
            self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - began
            return result

        return timed

    def lap(self, data: float, step: float) -> dict[str, float]:
        """The parts of a step that took so long beside its data [s]; begins anew."""
        found, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        generation = max(found["generation"], found.get("pairs", 0.0) - found["ranking"])
        networks = step - generation - found["ranking"]
        return {"data": data, "generation": generation, "ranking": found["ranking"], "networks": networks}


def measured(name: StageName, model: str, data: str, options: Options) -> Row:
    """One stage, in this process."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    loop = LoopConfig(
        max_steps=options.steps + 1,
        batch_size=options.batch_size,
        lr=1e-5,
        warmup_steps=0,
        workers=options.workers,
        bfloat16=options.bfloat16,
        cpu=options.cpu,
    )
    processes = Processes(options.cpu)
    stage = make_stage(name, model, options)
    for part in stage.trained.values():
        for key, net in part.networks.items():
            set_training(net.to(processes.device), part.statistics.get(key, "updated"))
    for net in stage.frozen.values():
        net.to(processes.device)
    laps = _laps(
        stage, Engine(stage.trained, loop, processes), CropDataset(data, stage.crops, 0, 10**6), loop
    )
    medians = {part: statistics.median(lap[part] for lap in laps) for part in PARTS}
    total = statistics.median(sum(lap.values()) for lap in laps)
    on_gpu = processes.device.type == "cuda"
    gpu = torch.cuda.max_memory_allocated(processes.device) / 2**20 if on_gpu else 0.0
    return Row(name, total, **medians, megabytes=_peak(), gpu_megabytes=gpu)


def _laps(stage: Stage, engine: Engine, dataset: CropDataset, loop: LoopConfig) -> list[dict[str, float]]:
    """The parts of every step but the first."""
    watch = Stopwatch(stage, engine.device)
    laps, began = [], watch.now()
    for batches in step_batches(dataset, loop, engine.processes, 0, loop.max_steps):
        drawn = watch.now()
        stage.step(batches, engine)
        laps.append(watch.lap(drawn - began, watch.now() - drawn))
        began = watch.now()
    return laps[1:]


def _peak() -> float:
    """Largest resident memory of this process [MiB]; getrusage would count the parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def random_model(folder: Path, width: float) -> str:
    """A model of the released form at this width, with random weights."""
    torch.manual_seed(0)
    net = NetConfig(width=width)
    networks = build(ModelConfig(net=net, refiner=net))
    save_model(folder, networks, CompletionConfig(), "# Random\n")
    return str(folder)


def run(options: Options) -> list[Row]:
    """All stages, each in a fresh Python."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model
        if options.width is not None:
            model = random_model(Path(scratch) / "model", options.width)
        data = options.data
        if data is None:
            data = Path(scratch) / "data"
            for seed in (SIMULATED, SIMULATED + 1):
                write_sequence(data, seed, simulate_sequence(seed, frames=2))
        for name in options.stages:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                rows.append(pool.submit(measured, name, model, str(data), options).result())
            print(f"{name}: {rows[-1].seconds:.2f} s", flush=True)
    return rows


def markdown(rows: list[Row]) -> str:
    """The table: a line a stage."""
    lines = [
        "| stage | step [s] | data [s] | generation [s] | ranking [s] | networks [s] | memory [MiB] | GPU [MiB] |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        parts = " | ".join(f"{getattr(row, part):.2f}" for part in PARTS)
        gpu = f"{row.gpu_megabytes:.0f}" if row.gpu_megabytes else ""
        lines.append(f"| {row.stage} | {row.seconds:.2f} | {parts} | {row.megabytes:.0f} | {gpu} |")
    return "\n".join(lines)


def main(options: Options) -> int:
    """Measure, print the table, and write the record."""
    load = os.getloadavg()[0]
    rows = run(options)
    print(f"load of the machine before: {load:.1f}\n\n{markdown(rows)}")
    if options.record:
        said = {
            name: value for name, value in asdict(options).items() if name not in ("data", "record", "model")
        }
        content = {
            **environment(),
            "date": datetime.date.today().isoformat(),
            "load": [load, os.getloadavg()[0]],
            "gpu": None if options.cpu else torch.cuda.get_device_name(),
            "model": "random weights" if options.width is not None else Path(options.model).name,
            "data": "simulated" if options.data is None else options.data.name,
            "options": said,
            "rows": [asdict(row) for row in rows],
        }
        write_json(options.record, content)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
