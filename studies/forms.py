"""Which form of the teacher trains: norm, unit of the prediction, prior, coordinates, sampler, one at a time.

    python studies/forms.py --data data/train --validation data/validation --out runs/forms     # two hours, one core
    python studies/forms.py --table                                                             # from the record

Every row departs in one point from the small family's form, at a quarter of the released width and on small crops, and
is trained for as many steps on the same crops with the same noise. Then it completes the same held-out crops by the
released sampler and by the one that is consistent with Eq. 1. Interrupted, the same command goes on.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from judging import Judge, mean
from rich.console import Console

from densescan.completer import CompletionConfig, SamplerName
from densescan.data.dataset import CropConfig
from densescan.files import atomic_write
from densescan.losses.denoising import RELEASED_PRIOR_WEIGHT
from densescan.nets.minkunet import NetConfig
from densescan.training.config import LoopConfig
from densescan.training.loop import fit
from densescan.training.record import environment
from densescan.training.teacher import TeacherConfig, TeacherStage

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "studies" / "forms.json"
NET = NetConfig(width=0.25, norm="layer", voxel_size=0.1, point_features="local", see_scan=True)
BASE = TeacherConfig(net=NET, crops=CropConfig(scan_points=500, truth_points=5000), prior_weight=0.0)
FORMS = {
    "small family": BASE,
    "batch norm": replace(BASE, net=replace(NET, norm="batch")),
    "prior on mean and spread": replace(BASE, prior_weight=RELEASED_PRIOR_WEIGHT),
    "predicts the displacement": replace(BASE, net=replace(NET, predicts="displacement")),
    "scan in the encoder alone": replace(BASE, net=replace(NET, see_scan=False)),
    "absolute coordinates": replace(BASE, net=replace(NET, point_features="absolute")),
    "released, all of these": replace(
        BASE, net=NetConfig(width=0.25, voxel_size=0.1), prior_weight=RELEASED_PRIOR_WEIGHT
    ),
}
SAMPLERS: tuple[SamplerName, ...] = ("consistent", "sde-dpm-solver++")
STEPS = (50, 8, 4, 2, 1)


@dataclass(frozen=True)
class Study:
    """What to train, and where the results go."""

    data: Path = Path("data/train")
    """Training data, as `densescan data simulate data/train --seeds 0:100` writes it."""
    validation: Path = Path("data/validation")
    """Held-out data (--seeds 9000:9012 --frames 2)."""
    out: Path = Path("runs/forms")
    """Folder of the runs, one for each form."""
    forms: tuple[str, ...] = tuple(FORMS)
    """Rows of the table that are trained now; the others keep what the record says."""
    steps: int = 1200
    """Steps of training."""
    crops: int = 12
    """Held-out crops."""
    record: Path = RECORD
    """JSON record; rows that it has are replaced."""
    table: bool = False
    """Train nothing: print the table of the record."""


def main(study: Study) -> None:
    """Train, judge, record, print."""
    if not study.table:
        judge = Judge(study.validation, BASE.crops, study.crops)
        for name in study.forms:
            write_row(study.record, name, row(name, study, judge))
    console = Console(width=150, highlight=False)
    for line in table(json.loads(study.record.read_text())):
        console.print(line, markup=False, soft_wrap=True)


def row(name: str, study: Study, judge: Judge) -> dict[str, Any]:
    """Train one form and judge it."""
    torch.manual_seed(0)
    stage = TeacherStage(FORMS[name])
    loop = LoopConfig(
        max_steps=study.steps, workers=0, cpu=True, validate_every=study.steps, validation_crops=study.crops
    )
    folder = study.out / name.replace(" ", "-").replace(",", "")
    nets = fit(stage, study.data, loop, folder, validation=study.validation)
    scores = {}
    for sampler in SAMPLERS:
        completion = CompletionConfig(repeat=5, guidance_scale=1.0, sampler=sampler)
        scores[sampler] = {str(steps): judge(nets, completion, steps) for steps in STEPS}
    return {
        "form": asdict(FORMS[name]),
        "loop": asdict(loop),
        "environment": environment(),
        "errors": last_validation(folder),
        "scores": scores,
    }


def last_validation(folder: Path) -> dict[str, float]:
    """The newest figures that the run has for held-out crops."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figures: dict[str, float] = [row for row in rows if "validation/cd" in row][-1]
    return figures


def write_row(path: Path, name: str, found: dict[str, Any]) -> None:
    """Add or replace a row of the record."""
    rows = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**rows, name: found}, indent=1) + "\n")


def table(rows: dict[str, Any]) -> Iterator[str]:
    """The record as a table in Markdown: mean squared errors of the noise, then the Chamfer distances [m]."""
    errors = ("mse_t300", "mse_t600", "mse_t999")
    heads = [f"{'consistent' if s == 'consistent' else 'released'}, {n}" for s in SAMPLERS for n in STEPS]
    yield "| " + " | ".join(["form", *(f"error, t = {e[5:]}" for e in errors), *heads]) + " |"
    yield "|---" + "|---:" * (len(errors) + len(heads)) + "|"
    for name in sorted(rows, key=list(FORMS).index):
        found = rows[name]
        cells = [f"{found['errors'][f'validation/{e}']:.2f}" for e in errors]
        cells += [f"{mean(found['scores'][s][str(n)], 'cd'):.3f}" for s in SAMPLERS for n in STEPS]
        yield "| " + " | ".join([name, *cells]) + " |"


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
