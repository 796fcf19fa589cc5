"""How good are the scenes: ours beside the bare scan and the jittered scan, on simulated and on real scans.

    python benchmarks/quality.py --simulated 9100:9120
    python benchmarks/quality.py --real RAW0009 --picture sheet.png

RAW0009 holds `velodyne/*.bin` (motion compensated), `poses.txt` and `calib.txt`. The ground truth of a real scan is cut
from the map of all scans of the folder by the released rule; that of a simulated scan is the exact surface.
"""

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from rich.progress import track

import densescan
from densescan.completer import Completer
from densescan.data.maps import accumulate, ground_truth_crop
from densescan.data.poses import read_lidar_poses
from densescan.data.simulator import simulate_frame
from densescan.errors import InputError
from densescan.files import atomic_write
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.metrics.chamfer import chamfer_distance
from densescan.metrics.iou import iou
from densescan.metrics.jsd import jsd
from densescan.training.record import environment
from densescan.viewer.render import render_sheet

COLUMNS = ("scene->truth", "truth->scene", "CD", "JSD BEV", "JSD 3D", "IoU 0.5", "IoU 0.2")
JITTERS = (0.05, 0.1, 0.2, 0.3, 0.985)
"""Standard deviations of the jittered scan [m]; 0.985 is the start of sampling."""
RIVAL_POINTS, RIVAL_REPEAT = 18_000, 10
"""The rival's scan is reduced to so many points, each repeated so often: as many as the released scenes have."""


OUTPUTS = ("record", "picture")
"""Options that say where results go and do not change them."""


@dataclass(frozen=True)
class Options:
    """Score a model beside its trivial rivals."""

    model: str = "small"
    """Bundled name or model folder."""
    simulated: str | None = None
    """Held-out seeds FIRST:LAST of the simulator, one scan a seed."""
    real: Path | None = None
    """Folder with velodyne/*.bin, poses.txt and calib.txt."""
    frames: int = 10
    """How many scans of the real folder, evenly spaced over its middle."""
    changes: tuple[str, ...] = ()
    """Parameters of the completion that differ from the model's, as NAME=VALUE (JSON)."""
    record: Path | None = None
    """Write every scan's scores to this JSON file."""
    picture: Path | None = None
    """Write a sheet of the first two scans to this PNG."""
    seed: int = 0
    """Of the completions and of the jitter."""


class Case(NamedTuple):
    """One scan and its ground truth, sensor frame [m]."""

    name: str
    scan: np.ndarray
    truth: np.ndarray


def simulated_cases(seeds: str) -> Iterator[Case]:
    """One frame of a street of its own for every seed."""
    first, last = map(int, seeds.split(":"))
    for seed in range(first, last):
        frame = simulate_frame(seed)
        yield Case(f"simulated {seed}", frame.scan, frame.truth)


def real_cases(folder: Path, frames: int) -> Iterator[Case]:
    """Scans of a drive, their truth cut from the map of the whole drive."""
    paths = sorted((folder / "velodyne").glob("*.bin"))
    poses = read_lidar_poses(folder / "poses.txt", folder / "calib.txt")
    if len(paths) != len(poses) or not paths:
        raise InputError(f"{folder}: {len(paths)} scans but {len(poses)} poses; both must be the whole drive")
    scans = [densescan.read_scan(path).points for path in paths]
    world = accumulate(zip(scans, poses, strict=True))
    for i in np.linspace(0.15 * len(scans), 0.85 * len(scans), frames).astype(int):
        truth = ground_truth_crop(world, poses[i], scans[i]).astype(np.float32)
        yield Case(f"{folder.name} {paths[i].stem}", scans[i], truth)


def rivals(scan: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The bare scan, and its reduced copies jittered by each sigma."""
    points = torch.from_numpy(scan)
    points = points[within_range(points, 3.5, 50.0)]
    repeated = points[farthest_point_sampling(points, RIVAL_POINTS)].repeat(RIVAL_REPEAT, 1)
    eps = torch.randn(repeated.shape, generator=torch.Generator().manual_seed(seed))
    scenes = {"bare scan": points.numpy()}
    return scenes | {f"jittered {sigma}": (repeated + sigma * eps).numpy() for sigma in JITTERS}


def scores(scene: np.ndarray, truth: np.ndarray) -> list[float]:
    """The figures of `COLUMNS`."""
    chamfer = chamfer_distance(scene, truth, workers=-1)
    return [
        chamfer.pred_to_truth,
        chamfer.truth_to_pred,
        chamfer.cd,
        jsd(scene, truth, bev=True),
        jsd(scene, truth, bev=False),
        iou(scene, truth, 0.5),
        iou(scene, truth, 0.2),
    ]


@dataclass
class Table:
    """Scores of every method on every scan."""

    rows: dict[str, list[list[float]]] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Means over the scans, the best jitter marked, and the paired difference of ours to it."""
        means = {name: np.mean(values, axis=0) for name, values in self.rows.items()}
        best = min((n for n in means if n.startswith("jittered")), key=lambda n: means[n][2])
        lines = [
            f"| {len(self.cases)} scans | " + " | ".join(COLUMNS) + " |",
            "|---" * (len(COLUMNS) + 1) + "|",
        ]
        for name, mean in means.items():
            label = f"{name} (best CD of the jitters)" if name == best else name
            lines.append(f"| {label} | " + " | ".join(f"{value:.3f}" for value in mean) + " |")
        return "\n".join(lines)


def evaluate(
    completer: Completer, cases: Callable[[], Iterator[Case]], options: Options, total: int
) -> tuple[Table, list[Any]]:
    """Score all methods on all cases; returns the table, and the clouds of the first two scans for a picture."""
    table, clouds = Table(), []
    changes = {name: json.loads(value) for name, value in (c.split("=", 1) for c in options.changes)}
    for case in track(cases(), total=total, description="scoring"):
        completion = completer(case.scan, seed=options.seed, **changes)
        scenes = rivals(case.scan, options.seed) | {"ours, coarse": completion.coarse}
        if completer.networks.refiner is not None:
            scenes["ours"] = completion.points
        table.cases.append(case.name)
        for name, scene in scenes.items():
            table.rows.setdefault(name, []).append(scores(scene, case.truth))
        if len(clouds) < 2:
            clouds.append((case, scenes))
    return table, clouds


def _environment(options: Options) -> dict[str, Any]:
    return {
        **environment(),
        "date": datetime.date.today().isoformat(),
        "options": {name: str(value) for name, value in vars(options).items() if name not in OUTPUTS},
    }


def main(options: Options) -> None:
    """Score, print the table, and write the record and the picture that were asked for."""
    completer = densescan.load(options.model)
    if options.simulated:
        first, last = map(int, options.simulated.split(":"))
        table, clouds = evaluate(
            completer, lambda: simulated_cases(str(options.simulated)), options, last - first
        )
    elif options.real:
        folder = options.real
        table, clouds = evaluate(
            completer, lambda: real_cases(folder, options.frames), options, options.frames
        )
    else:
        raise InputError("nothing to score: give --simulated FIRST:LAST or --real FOLDER")
    print(table.markdown())
    if options.record:
        content = {**_environment(options), "columns": COLUMNS, "cases": table.cases, "scores": table.rows}
        with atomic_write(options.record) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")
    if options.picture:
        shown = ("bare scan", "jittered 0.1", list(table.rows)[-1])
        columns = {name: [scenes[name] for _, scenes in clouds] for name in shown}
        columns["ground truth"] = [case.truth for case, _ in clouds]
        render_sheet(columns, options.picture, rows=[case.name for case, _ in clouds])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
