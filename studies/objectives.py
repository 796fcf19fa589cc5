"""What each objective makes of the same student: score distillation, the preference alone with either sign, and both.

    python studies/objectives.py --seeds 0 1 2     # every objective and seed: several hours on one core
    python studies/objectives.py --table           # from the record; --figure draws the curves

Every run starts from the bundled teacher and sees the same crops of simulated streets, in the order of its seed. All
students then complete the same held-out crops with the same noise, so that differences between them are paired; the row
`the teacher itself` is where they start. Interrupted, the same command goes on; rows of the record are not run again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from judging import Judge, with_interval
from matplotlib.figure import Figure
from rich.console import Console

from densescan.files import atomic_write
from densescan.training.config import LoopConfig
from densescan.training.distillation import CROPS, DistillationConfig
from densescan.training.distillation_dpo import DistillationDpoConfig, DistillationDpoStage
from densescan.training.loop import fit
from densescan.training.record import environment
from densescan.training.score_distillation import ScoreDistillationConfig, ScoreDistillationStage

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "studies" / "objectives.json"
FIGURE = ROOT / "docs" / "images" / "objectives.png"
STEPS = (8, 1)
START = "the teacher itself"
PLAIN = "score distillation"

SHARED: dict[str, Any] = {
    "crops": replace(CROPS, scan_points=500),
    "repeat": 5,
    "student_steps": (1, 4),
    "head_start": 20,
}
SCORE, DPO = ScoreDistillationConfig(**SHARED), DistillationDpoConfig(**SHARED)
OBJECTIVES: dict[str, DistillationConfig] = {
    PLAIN: SCORE,
    "both, weight 0.5": replace(DPO, weight=0.5),
    "both, weight 1": DPO,
    "both, weight 2": replace(DPO, weight=2.0),
    "preference alone, as printed": replace(DPO, objective="preference-as-printed"),
    "preference alone, sign of the release": replace(DPO, objective="preference-as-released"),
    "score distillation and Chamfer": replace(SCORE, chamfer_weight=1.0),
    "both, weight 1, and Chamfer": replace(DPO, chamfer_weight=1.0),
}
LOOP = LoopConfig(
    max_steps=100, batch_size=1, lr=3e-5, warmup_steps=10, ema=0.9, workers=0, cpu=True, checkpoint_every=50
)


@dataclass(frozen=True)
class Study:
    """What to train, and where the results go."""

    seeds: tuple[int, ...] = (0,)
    """Of crops and noise; one run of each objective for each."""
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    """Rows that are trained."""
    data: Path = Path("data/train")
    """Training data, as `densescan data simulate data/train --seeds 0:100` writes it."""
    validation: Path = Path("data/validation")
    """Held-out data (--seeds 9000:9012 --frames 2)."""
    out: Path = Path("runs/objectives")
    """Folder of the runs."""
    loop: LoopConfig = field(default_factory=lambda: LOOP)
    """How long and how fast."""
    crops: int = 24
    """Held-out crops."""
    record: Path = RECORD
    """JSON record; runs that it has are not repeated."""
    table: bool = False
    """Train nothing: print the table of the record."""
    figure: bool = False
    """Train nothing: draw the record."""


def main(study: Study) -> None:
    """Train, judge, record, print."""
    if not (study.table or study.figure):
        run(study)
    rows = json.loads(study.record.read_text())
    if study.figure:
        draw(rows, FIGURE)
    console = Console(highlight=False)
    for line in table(rows):
        console.print(line, markup=False, soft_wrap=True)


def run(study: Study) -> None:
    """All runs that the record lacks, seed by seed."""
    judge = Judge(study.validation, SHARED["crops"], study.crops)
    names = [(START, 0), *((name, seed) for seed in study.seeds for name in study.objectives)]
    for name, seed in names:
        rows = json.loads(study.record.read_text()) if study.record.is_file() else {}
        if str(seed) in rows.get(name, {}):
            continue
        found = trained(name, seed, study, judge)
        rows.setdefault(name, {})[str(seed)] = found
        study.record.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(study.record) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")


def trained(name: str, seed: int, study: Study, judge: Judge) -> dict[str, Any]:
    """Train a student with one objective, and judge it."""
    config = OBJECTIVES.get(name, SCORE)
    stage = (
        DistillationDpoStage(config)
        if isinstance(config, DistillationDpoConfig)
        else ScoreDistillationStage(config)  # type: ignore[arg-type]
    )
    loop, folder = (
        replace(study.loop, seed=seed),
        study.out / name.replace(" ", "-").replace(",", "") / str(seed),
    )
    about = {"stage": asdict(config), "loop": asdict(loop), "environment": environment()}
    if name == START:
        nets, curves = stage.results, {}
    else:
        torch.manual_seed(seed)
        nets = fit(stage, study.data, loop, folder)
        curves = read_curves(folder)
    scores = {str(steps): judge(nets, stage.completion, steps) for steps in STEPS}
    return {**about, "scores": scores, "curves": curves}


def read_curves(folder: Path) -> dict[str, list[float]]:
    """Figures of every step of a run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wanted = ("loss", "grad_norm", "gap", "gap_w", "gap_l", "margin", "first_wins", "seconds", "chamfer")
    return {name: [round(row[name], 5) for row in rows] for name in wanted if name in rows[0]}


Rows = Mapping[str, Mapping[str, Any]]


def per_seed(rows: Rows, name: str, steps: int, figure: str) -> list[np.ndarray]:
    """A figure of the held-out crops, for each seed of an objective."""
    return [np.array(found["scores"][str(steps)][figure]) for _, found in sorted(rows[name].items())]


def table(rows: Rows) -> Iterator[str]:
    """The record as a table in Markdown: mean over crops, then over seeds with their standard deviation."""
    columns = [(figure, steps) for figure in ("cd", "jsd") for steps in STEPS]
    heads = [f"{figure.upper()}, {steps} step{'s' if steps > 1 else ''}" for figure, steps in columns]
    yield (
        "| "
        + " | ".join(["objective", "seeds", *heads, *(f"{head}, against plain" for head in heads)])
        + " |"
    )
    yield "|---|" + "---:|" * (2 * len(columns) + 1)
    for name in [START, *OBJECTIVES]:
        if name not in rows:
            continue
        cells = [name, str(len(rows[name]))]
        cells += [spread([crops.mean() for crops in per_seed(rows, name, s, f)]) for f, s in columns]
        cells += [against_plain(rows, name, s, f) for f, s in columns]
        yield "| " + " | ".join(cells) + " |"


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


def against_plain(rows: Rows, name: str, steps: int, figure: str) -> str:
    """Mean paired difference of a figure to plain score distillation of the same seed, with its 95 % interval: over
    seeds and crops, whose differences are taken as independent."""
    if name in (START, PLAIN):
        return ""
    shared = sorted(rows[name].keys() & rows[PLAIN].keys())
    pairs = [
        [np.array(rows[n][seed]["scores"][str(steps)][figure]) for n in (name, PLAIN)] for seed in shared
    ]
    if not pairs:
        return ""
    return with_interval(np.concatenate([ours - plain for ours, plain in pairs]))


def draw(rows: Rows, path: Path) -> None:
    """Left: how far assistants and teacher come to disagree; right: Chamfer distances of every seed."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [name for name in OBJECTIVES if name in rows]
    for i, name in enumerate(names):
        gaps = [found["curves"].get("gap_w", found["curves"].get("gap")) for found in rows[name].values()]
        left.plot(np.convolve(np.mean(gaps, axis=0), np.ones(10) / 10, "valid"), color=f"C{i}", label=name)
        for steps, marker in zip(STEPS, "o^", strict=True):
            found_cd = [crops.mean() for crops in per_seed(rows, name, steps, "cd")]
            right.plot([i] * len(found_cd), found_cd, marker, color=f"C{i}", mfc="none")
    for steps, line in zip(STEPS, ("-", "--"), strict=True):
        start = per_seed(rows, START, steps, "cd")[0].mean()
        right.axhline(
            start, color="grey", ls=line, lw=1, label=f"the teacher, {steps} step{'s' if steps > 1 else ''}"
        )
    left.set(xlabel="step", ylabel="rms of teacher - assistant, on winners", title="what drives the student")
    left.set_ylim(0)
    right.set(ylabel="Chamfer distance, held out [m]", title="circles: 8 steps, triangles: 1 step")
    right.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
