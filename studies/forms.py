"""Which form of the teacher trains: norm, unit of the prediction, prior, coordinates, sampler, one at a time.

    python studies/forms.py --data data/train --validation data/validation --out runs/forms     # two hours, one core
    python studies/forms.py --forms "small family" "batch norm" --seeds 1 2                     # other seeds
    python studies/forms.py --table                                                             # from the record

Every row departs in one point from the small family's form, at a quarter of the released width and on small crops, and
is trained for as many steps on the same crops with the same noise. Then it completes the same held-out crops by the
released sampler and by the one that is consistent with Eq. 1. Interrupted, the same command goes on.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from judging import Judge, mean, with_interval
from rich.console import Console

from densescan.completion import CompletionConfig, SamplerName
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
    seeds: tuple[int, ...] = (0,)
    """Of initial weights, crops and noise; held-out crops and their noise are the same for all."""
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
        for seed, name in product(study.seeds, study.forms):
            write_run(study.record, name, seed, run(name, seed, study, judge))
    console = Console(width=150, highlight=False)
    rows = json.loads(study.record.read_text())
    for line in (*table(rows), "", *paired(rows)):
        console.print(line, markup=False, soft_wrap=True)


def run(name: str, seed: int, study: Study, judge: Judge) -> dict[str, Any]:
    """Train one form and judge it."""
    torch.manual_seed(seed)
    stage = TeacherStage(FORMS[name])
    loop = LoopConfig(
        max_steps=study.steps,
        workers=0,
        cpu=True,
        validate_every=study.steps,
        validation_crops=study.crops,
        seed=seed,
    )
    folder = study.out / name.replace(" ", "-").replace(",", "") / str(seed)
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


def write_run(path: Path, name: str, seed: int, found: dict[str, Any]) -> None:
    """Add or replace a run in the record: form, then seed."""
    rows = json.loads(path.read_text()) if path.is_file() else {}
    rows[name] = {**rows.get(name, {}), str(seed): found}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")


def table(rows: dict[str, Any]) -> Iterator[str]:
    """The record in Markdown: mean squared errors of the noise and Chamfer distances [m], means over seeds."""
    errors = ("mse_t300", "mse_t600", "mse_t999")
    heads = [f"{'consistent' if s == 'consistent' else 'released'}, {n}" for s in SAMPLERS for n in STEPS]
    yield "| " + " | ".join(["form", "seeds", *(f"error, t = {e[5:]}" for e in errors), *heads]) + " |"
    yield "|---" + "|---:" * (1 + len(errors) + len(heads)) + "|"
    for name in sorted(rows, key=list(FORMS).index):
        runs = list(rows[name].values())
        cells = [f"{np.mean([run['errors'][f'validation/{e}'] for run in runs]):.2f}" for e in errors]
        cells += [f"{np.mean([chamfer(run, s, n) for run in runs]):.3f}" for s in SAMPLERS for n in STEPS]
        yield "| " + " | ".join([name, str(len(runs)), *cells]) + " |"


def paired(rows: dict[str, Any], sampler: SamplerName = "consistent") -> Iterator[str]:
    """In Markdown: Chamfer distance [m] less that of the small family with the same seed, crop and noise, by steps."""
    yield "| against the small family | seeds | " + " | ".join(f"{sampler}, {n}" for n in STEPS) + " |"
    yield "|---|---" + "|---:" * len(STEPS) + "|"
    for name in sorted(rows, key=list(FORMS).index):
        seeds = [seed for seed in rows[name] if seed in rows["small family"]]
        if name != "small family" and seeds:
            found = ([crops(rows[form][s], sampler) for s in seeds] for form in (name, "small family"))
            differences = np.subtract(*found)
            cells = [with_interval(differences[..., step].ravel()) for step in range(len(STEPS))]
            yield "| " + " | ".join([name, ", ".join(seeds), *cells]) + " |"


def chamfer(run: dict[str, Any], sampler: str, steps: int) -> float:
    """Of one run [m], mean over the crops."""
    return mean(run["scores"][sampler][str(steps)], "cd")


def crops(run: dict[str, Any], sampler: str) -> Float[np.ndarray, "crops steps"]:
    """Chamfer distances [m] of one run."""
    return np.transpose([run["scores"][sampler][str(n)]["cd"] for n in STEPS])


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
