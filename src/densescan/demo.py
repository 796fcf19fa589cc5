"""`make demo`: complete the bundled example scan, draw it, and score it against its known truth."""

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from densescan.cli.console import guarded, progress, rows, say
from densescan.completer import Completer
from densescan.data.io import read_scan
from densescan.data.split import Case
from densescan.evaluation.measures import MEASURES, measure
from densescan.evaluation.methods import bare_scan, jittered_scan
from densescan.files import make_folder
from densescan.viewer.render import render_before_after
from densescan.weights.folder import DEFAULT_MODEL, load

EXAMPLES = Path(__file__).parent / "data" / "examples"
SCAN, TRUTH = EXAMPLES / "street.bin", EXAMPLES / "street_truth.npz"
JITTER = 0.1
"""Standard deviation of the trivial rival, a reduced, repeated and jittered scan [m]."""
MEASURED = ("chamfer", "jsd", "iou")


def read_truth() -> np.ndarray:
    """The true surface around the example scan, (M, 3) [m], sensor frame."""
    with np.load(TRUTH, allow_pickle=False) as archive:
        return archive["points"].T.astype(np.float32) / 100


def run(folder: Path, completer: Completer) -> None:
    """Complete the example, write scene.ply and before_after.png, and print seconds and scores.

    Raises: InputError: the folder cannot be written.
    """
    make_folder(folder)
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
    figures = [figure for name in MEASURED for figure in MEASURES[name].figures]
    table = Table(Column("against the truth", no_wrap=True), *(escape(figure.heading) for figure in figures))
    case = Case(SCAN.name, scan, truth)
    rivals = {"bare scan": bare_scan(), f"jittered scan, {JITTER:g} m": jittered_scan(JITTER)}
    scenes = {name: rival.complete(case, 0).points for name, rival in rivals.items()}
    for name, points in {**scenes, "densescan": scene.points}.items():
        found = measure(points, truth, MEASURED)
        table.add_row(name, *(f"{found[figure.key]:.{figure.digits}f}" for figure in figures))
    Console(width=max(Console().width, 120)).print(table)


def main() -> int:
    """Run the demonstration in ./demo; returns the exit status."""
    return guarded(lambda: run(Path("demo"), load(DEFAULT_MODEL)))


if __name__ == "__main__":
    sys.exit(main())
