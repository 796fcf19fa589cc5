"""What the bundled models predict on scans denser than those of their training, with and without bounds on features.

    python studies/bounds.py src/densescan/data/examples/street.bin 000964.bin nuscenes.npy    # minutes, one core
    python studies/bounds.py --table                                                           # from the record

Noise from a normal distribution has hardly a coordinate beyond 5 standard deviations. The models look at the start of
sampling, from some or all points of each scan: how large is the prediction, and for how many points is it beyond 6?
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from densescan.data.io import read_scan
from densescan.diffusion import Schedule, gaussian, noise_scene
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.nets.blocks import BOUND
from densescan.nets.fused import fuse
from densescan.sparse.modules import BatchNorm
from densescan.training.record import environment, write_json
from densescan.weights.folder import read_model

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "studies" / "bounds.json"
BEYOND = 6.0
"""Standard deviations beyond which a coordinate is no noise."""
EVERY_POINT = 1_000_000
BOUNDS = (None, 2 * BOUND, BOUND)


@dataclass(frozen=True)
class Study:
    """Which models, on which scans."""

    scans: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE ...]")] = ()
    """Point files; of an `.npy` array the first three columns."""
    models: tuple[str, ...] = ("small", "small-teacher")
    """Bundled names or model folders."""
    points: tuple[int, ...] = (3_000, 18_000, EVERY_POINT)
    """The scan is reduced to so many; a smaller one is used whole."""
    scene_points: int = 180_000
    """Each point is repeated so that there are about so many."""
    record: Path = RECORD
    """Where the results go."""
    table: bool = False
    """Only print the table of the record."""


def read(path: Path) -> Float[Tensor, "N 3"]:
    """The points within the range that is completed [m]."""
    points = np.load(path)[:, :3].astype(np.float32) if path.suffix == ".npy" else read_scan(path).points
    cloud = torch.from_numpy(np.ascontiguousarray(points))
    return cloud[within_range(cloud, 3.5, 50.0)]


@torch.inference_mode()
def first_prediction(
    model: str, bound: float | None, scan: Float[Tensor, "N 3"], repeat: int
) -> Float[Tensor, "M 3"]:
    """The noise that a model predicts at the start of sampling, if its norms are kept within a bound."""
    networks, _ = read_model(model)
    assert networks.encoder is not None
    assert networks.denoiser is not None
    for net in (networks.encoder, networks.denoiser):
        for module in net.modules():
            if isinstance(module, BatchNorm):
                module.bound = bound
    encoder, denoiser = fuse(networks.encoder), fuse(networks.denoiser)
    x_init = scan.repeat(repeat, 1)[None]
    x_T = noise_scene(x_init, 1.0, gaussian(torch.Generator().manual_seed(0))(x_init))
    eps_hat: Tensor = denoiser(x_T, torch.tensor([Schedule().T - 1]), encoder(scan[None]))
    return eps_hat[0]


def rows_of(study: Study) -> list[dict[str, Any]]:
    """Largest coordinate and share of points beyond `BEYOND`, for every combination."""
    rows = []
    for path, n in product(study.scans, study.points):
        scan = read(path)
        kept = scan[farthest_point_sampling(scan, n)]
        repeat = max(1, study.scene_points // len(kept))
        for model, bound in product(study.models, BOUNDS):
            size = first_prediction(model, bound, kept, repeat).abs().amax(1)
            row = {"scan": path.name, "points": len(kept), "repeat": repeat, "model": model, "bound": bound}
            rows.append(
                {**row, "largest": float(size.max()), "beyond": float((size > BEYOND).float().mean())}
            )
    return rows


def table_of(rows: list[dict[str, Any]]) -> str:
    """A line a scan, density and model, as Markdown."""
    bounds = list(dict.fromkeys(row["bound"] for row in rows))
    names = ["no bound" if bound is None else f"bound {bound:g}" for bound in bounds]
    lines = [
        f"| scan | points | copies | model | {' | '.join(names)} |",
        "|---|---:|---:|---|" + "---:|" * len(bounds),
    ]
    cells: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        place = tuple(row[name] for name in ("scan", "points", "repeat", "model"))
        cells.setdefault(place, []).append(f"{row['largest']:.3g}, {100 * row['beyond']:.2g} %")
    for (scan, points, repeat, model), found in cells.items():
        lines.append(f"| {scan} | {points:,} | {repeat} | {model} | {' | '.join(found)} |")
    return "\n".join(lines)


def main(study: Study) -> None:
    """Predict, record, print."""
    if not study.table:
        write_json(study.record, {"environment": environment(), "rows": rows_of(study)})
    Console(soft_wrap=True, highlight=False).print(table_of(json.loads(study.record.read_text())["rows"]))


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
