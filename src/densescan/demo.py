"""`make demo`: complete the bundled example scan, draw it, and score it against its known truth."""

import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from densescan.cli.console import guarded, progress, rows, say
from densescan.completer import Completer
from densescan.data.io import read_scan
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.metrics.chamfer import chamfer_distance
from densescan.metrics.iou import iou
from densescan.metrics.jsd import jsd
from densescan.viewer.render import render_before_after
from densescan.weights.folder import DEFAULT_MODEL, load

EXAMPLES = Path(__file__).parent / "data" / "examples"
SCAN, TRUTH = EXAMPLES / "street.bin", EXAMPLES / "street_truth.npz"
JITTER = 0.1
"""Standard deviation of the trivial rival, a reduced, repeated and jittered scan [m]."""
COLUMNS = ("scene→truth", "truth→scene", "JSD BEV", "JSD 3D", "IoU 0.5", "IoU 0.2")


def read_truth() -> np.ndarray:
    """The true surface around the example scan, (M, 3) [m], sensor frame."""
    with np.load(TRUTH, allow_pickle=False) as archive:
        return archive["points"].T.astype(np.float32) / 100


def rivals(scan: np.ndarray, completer: Completer) -> dict[str, np.ndarray]:
    """What a scene is to beat: the scan itself, and as many jittered copies of its points as sampling starts from."""
    config = completer.config
    points = torch.from_numpy(scan)
    points = points[within_range(points, config.min_range, config.max_range)]
    copies = points[farthest_point_sampling(points, config.scan_points)].repeat(config.repeat, 1)
    eps = torch.randn(copies.shape, generator=torch.Generator().manual_seed(0))
    return {"bare scan": points.numpy(), f"jittered scan, {JITTER:g} m": (copies + JITTER * eps).numpy()}


def scores(scene: np.ndarray, truth: np.ndarray) -> list[float]:
    """The figures of `COLUMNS`: distances in metres, the others without unit."""
    chamfer = chamfer_distance(scene, truth, workers=-1)
    divergences = [jsd(scene, truth, bev=bev) for bev in (True, False)]
    overlaps = [iou(scene, truth, size) for size in (0.5, 0.2)]
    return [chamfer.pred_to_truth, chamfer.truth_to_pred, *divergences, *overlaps]


def run(folder: Path, completer: Completer) -> None:
    """Complete the example, write scene.ply and before_after.png, and print seconds and scores.

    Raises: InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; run it elsewhere") from error
    scan, truth = read_scan(SCAN), read_truth()
    with progress("completing", completer.config.steps) as update:
        scene = completer(scan, seed=0, on_step=lambda done, _: update(done, ""))
    scene.save(folder / "scene.ply")
    render_before_after(scan.points, scene.points, folder / "before_after.png", title="example scan")
    seconds = "  ".join(f"{stage} {value:.2f}" for stage, value in scene.seconds.items())
    say(
        rows(
            {
                "scan": f"{SCAN.name}: {len(scan):,} points (simulated)",
                "scene": f"{folder / 'scene.ply'}: {len(scene.points):,} points",
                "picture": str(folder / "before_after.png"),
                "seconds": f"{seconds}  total {sum(scene.seconds.values()):.2f}",
            }
        )
    )
    table = Table(
        "against the truth", *COLUMNS, caption="distances in m; IoU: higher is better, all else: lower"
    )
    methods = {**rivals(scan.points, completer), "densescan": scene.points}
    for name, points in methods.items():
        table.add_row(name, *(f"{value:.3f}" for value in scores(points, truth)))
    Console(width=max(Console().width, 100)).print(table)


def main() -> int:
    """Run the demonstration in ./demo; returns the exit status."""
    return guarded(lambda: run(Path("demo"), load(DEFAULT_MODEL)))


if __name__ == "__main__":
    sys.exit(main())
