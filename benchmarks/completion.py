"""Completer against the plain rendering of the released pipeline: seconds, memory and how far the scenes differ.

    python benchmarks/completion.py --points 18000 --record

Both complete the same scan with the same random weights of full width from the same noise, each in a process of its
own, so that neither finds caches or memory of the other. The random predictions are small errors beside the true noise,
in both pipelines, so that the points settle as a trained network lets them and the work is that of a real completion.
"""

import json
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from load import Load
from runs import (
    Options,
    Run,
    compare_predictions,
    in_own_process,
    load_of_ours,
    prepare,
    run_ours,
    run_plain,
    scene_of_ours,
    shares_of_ours,
)

from densescan.errors import InputError
from densescan.metrics.chamfer import chamfer_distance
from densescan.training.record import cpu_model

RESULTS = Path(__file__).parent / "results"
STAGES = ("crop", "reduce", "encode", "denoise", "clean", "refine")
SAME_ROW = 0.5  # m; rows of the two scenes that are farther apart belong to different points
MOST_SKIPPED = 8  # rows in succession that one scene may lack
MOVED = 1e-3  # m


def common_rows(
    a: Float[np.ndarray, "A 3"], b: Float[np.ndarray, "B 3"]
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Rows of two scenes that belong together, where each dropped a few rows of one list that the other kept.

    Neighbouring rows lie far apart, as farthest point sampling ordered them, so rows that are `SAME_ROW` apart do not
    belong together; those left without a partner are in neither list.
    """

    def near(i: int, j: int) -> bool:
        return i < len(a) and j < len(b) and bool(np.linalg.norm(a[i] - b[j]) < SAME_ROW)

    rows_a, rows_b, i, j = [], [], 0, 0
    while (n := min(len(a) - i, len(b) - j)) > 0:
        far = np.flatnonzero(np.linalg.norm(a[i : i + n] - b[j : j + n], axis=1) >= SAME_ROW)
        run = int(far[0]) if len(far) else n
        rows_a.append(np.arange(i, i + run))
        rows_b.append(np.arange(j, j + run))
        i, j = i + run, j + run
        skips = [(s, 0) for s in range(1, MOST_SKIPPED) if near(i + s, j)]
        skips += [(0, s) for s in range(1, MOST_SKIPPED) if near(i, j + s)]
        skip_a, skip_b = min(skips, key=sum, default=(1, 1))
        i, j = i + skip_a, j + skip_b
    return np.concatenate(rows_a, dtype=int), np.concatenate(rows_b, dtype=int)


def differences(ours: Run, plain: Run) -> dict[str, dict[str, float]]:
    """How far corresponding points of the two scenes lie apart [m], before and after refinement."""
    rows = common_rows(ours.coarse, plain.coarse)
    found = {}
    for name, a, b in (("coarse", ours.coarse, plain.coarse), ("refined", ours.points, plain.points)):
        copies = len(a) // len(ours.coarse)  # refinement makes six adjacent points of each
        in_a, in_b = ((r[:, None] * copies + np.arange(copies)).ravel() for r in rows)
        distance = np.linalg.norm(a[in_a] - b[in_b], axis=1)
        found[name] = {
            "median": float(np.median(distance)),
            "quantile 0.999": float(np.quantile(distance, 0.999)),
            "largest": float(distance.max()),
            "share above 1 mm": float((distance > MOVED).mean()),
            "without counterpart": len(a) + len(b) - 2 * len(distance),
        }
    return found


def hardware(threads: int) -> str:
    """Processor, threads and versions."""
    return f"{cpu_model()}, {threads} threads, torch {torch.__version__}, Python {platform.python_version()}"


def commit() -> str:
    """The commit that was measured, marked where the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def time_table(runs: dict[str, Run]) -> list[str]:
    """Stage by stage, as Markdown: the first run, and every other one with how many times the first it takes."""
    (first, ours), *others = runs.items()
    heads = "".join(f" {name} [s] | / {first} |" for name, _ in others)
    lines = [f"| stage | {first} [s] |{heads}", f"|---|---:|{'---:|---:|' * len(others)}"]

    def line(name: str, value: Callable[[Run], float], form: str) -> str:
        cells = [format(value(ours), form)]
        for _, run in others:
            cells += [format(value(run), form), f"{value(run) / value(ours):.1f}" if value(ours) else ""]
        return f"| {name} | {' | '.join(cells)} |"

    lines += [line(stage, lambda run, stage=stage: run.seconds[stage], ".3f") for stage in STAGES]
    lines.append(line("**total**", lambda run: run.total, ".2f"))
    return [*lines, line("peak memory [MiB]", lambda run: run.megabytes, ".0f")]


def load_table(loads: dict[str, Load]) -> list[str]:
    """What the convolutions reach, as Markdown."""
    lines = [
        "| convolutions of ours | GFLOP | [s] | GFLOP/s | matrix peak meanwhile | share | highest peak | share |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, load in loads.items():
        rate, highest = load.flop / load.seconds / 1e9, max(load.peaks) / 1e9
        lines.append(
            f"| {name} | {load.flop / 1e9:,.0f} | {load.seconds:.2f} | {rate:.0f} | {load.peak / 1e9:.0f} "
            f"| {100 * load.share:.0f} % | {highest:.0f} | {100 * load.share_of_highest:.0f} % |"
        )
    return lines


def scene_table(ours: np.ndarray, others: dict[str, np.ndarray]) -> list[str]:
    """Chamfer distances of our float32 scene to others, as Markdown."""
    lines = ["| scene of ours in float32, against | Chamfer distance [m] |", "|---|---:|"]
    for name, other in others.items():
        lines.append(f"| {name} | {chamfer_distance(ours, other).cd:.4f} |")
    return lines


def difference_table(found: dict[str, dict[str, float]]) -> list[str]:
    """Distances between corresponding points, as Markdown."""
    lines = [
        "| distance ours - plain | median [m] | 99.9 % [m] | largest [m] | above 1 mm | without counterpart |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, d in found.items():
        median, tail, largest, share, alone = d.values()
        lines.append(
            f"| {name} | {median:.1e} | {tail:.1e} | {largest:.1e} | {100 * share:.3f} % | {alone} |"
        )
    return lines


def share_table(shares: dict[str, float]) -> list[str]:
    """Where the time of ours goes, as Markdown."""
    total = sum(shares.values())
    lines = ["| work of ours (a run under the profiler) | [s] | share |", "|---|---:|---:|"]
    return lines + [f"| {name} | {s:.2f} | {100 * s / total:.0f} % |" for name, s in shares.items()]


@dataclass(frozen=True)
class Measured:
    """All that one call of the benchmark finds; what was not asked for is None or empty."""

    scan: str
    ours: dict[str, Run]
    """By type, float32 first."""
    plain: Run | None
    apart: dict[str, float]
    shares: dict[str, float]
    loads: dict[str, Load]
    another_seed: np.ndarray

    @property
    def scenes(self) -> dict[str, np.ndarray]:
        """The scenes that ours in float32 is compared with."""
        others = {"the plain pipeline": self.plain.points} if self.plain else {}
        others |= {f"ours in {kind}": run.points for kind, run in self.ours.items() if kind != "float32"}
        return {"ours with another seed": self.another_seed} | others


def measure(options: Options, folder: Path) -> Measured:
    """Every run in a process of its own."""
    scan = in_own_process(prepare, options, folder)
    return Measured(
        scan=scan,
        ours={
            kind: in_own_process(run_ours, options, folder, **changes)
            for kind, changes in options.kinds.items()
        },
        plain=None if options.skip_plain else in_own_process(run_plain, options, folder),
        apart={} if options.skip_plain else in_own_process(compare_predictions, options, folder),
        shares=in_own_process(shares_of_ours, options, folder) if options.shares else {},
        loads={kind: in_own_process(load_of_ours, options, folder, kind) for kind in options.kinds}
        if options.shares
        else {},
        another_seed=in_own_process(scene_of_ours, options, folder, seed=options.seed + 1),
    )


def report(
    m: Measured, options: Options, about: dict[str, str], found: dict[str, dict[str, float]]
) -> Iterator[str]:
    """Lines to print."""
    kind = f"{options.points:,} points, {options.steps} steps, guidance {options.guidance:g}, width {options.width:g}"
    yield f"{m.scan}; {kind}\n{about['hardware']}; commit {about['commit']}\n"
    runs = dict(reversed(m.ours.items())) | ({"plain": m.plain} if m.plain else {})
    yield from time_table(runs)
    speeds = [f"{name} {len(run.points) / run.total:,.0f}" for name, run in runs.items()]
    yield f"\nPoints of the scene per second: {', '.join(speeds)}."
    if m.plain:
        yield from ("", *difference_table(found), "", m.plain.note)
        yield (
            "One prediction for the same points, ours - plain [standard deviations]: "
            f"median {m.apart['median']:.1e}, largest {m.apart['largest']:.1e}."
        )
    yield from ("", *scene_table(m.ours["float32"].points, m.scenes))
    if m.shares:
        yield from ("", *load_table(m.loads), "", *share_table(m.shares))


def main(options: Options) -> None:
    """Measure, print and, if asked, record."""
    with tempfile.TemporaryDirectory() as name:
        m = measure(options, Path(name))
    found = differences(m.ours["float32"], m.plain) if m.plain else {}
    about = {"scan": m.scan, "hardware": hardware(options.threads), "commit": commit()}
    print("\n".join(report(m, options, about, found)))
    if options.record:
        runs = {"ours" if kind == "float32" else f"ours in {kind}": run for kind, run in m.ours.items()}
        row = about | {
            "options": asdict(options),
            **{key: _summary(run) for key, run in runs.items()},
            "plain": m.plain and _summary(m.plain),
            "differences [m]": found,
            "differences of one prediction": m.apart,
            "Chamfer distance to ours in float32 [m]": {
                name: chamfer_distance(m.ours["float32"].points, scene).cd for name, scene in m.scenes.items()
            },
            "convolutions": {
                name: asdict(load) | {"share": load.share, "share of highest": load.share_of_highest}
                for name, load in m.loads.items()
            },
            "shares of ours [s]": m.shares,
        }
        path = RESULTS / f"completion-{options.points}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(row, indent=2, default=str) + "\n")


def _summary(run: Run) -> dict[str, Any]:
    sizes = {"points": len(run.points), "coarse points": len(run.coarse)}
    return {
        "seconds": run.seconds,
        "total": run.total,
        "peak memory [MiB]": run.megabytes,
        **sizes,
        "note": run.note,
    }


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, prog="python benchmarks/completion.py"))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
