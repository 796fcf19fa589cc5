"""A made-up street of two frames, a stage that trains in milliseconds, and small forms of the real stages."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from densescan.data.dataset import Crop, CropConfig, CropDataset
from densescan.nets.minkunet import NetConfig
from densescan.training.teacher import TeacherConfig, TeacherStage

CROPS = CropConfig(
    scan_points=150, truth_points=300, min_reduced=600, max_reduced=800, max_range=20.0, truth_margin=0.5
)
NETS = {
    "released": NetConfig(width=0.25, voxel_size=0.2),
    "own": NetConfig(width=0.25, norm="layer", voxel_size=0.2, point_features="local", see_scan=True),
}


def surface(n: int, seed: int) -> np.ndarray:
    """Sloping ground and a wall."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-12, 12, (2, n))
    points = np.column_stack((x, y, -1.7 + 0.03 * x))
    points[: n // 5, 0], points[: n // 5, 2] = 6.0, rng.uniform(-1.5, 3, n // 5)
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the layout that `CropDataset` reads."""
    folder = tmp_path_factory.mktemp("street")
    sequence = folder / "sequences" / "00"
    (sequence / "velodyne").mkdir(parents=True)
    (sequence / "truth").mkdir()
    for i in range(2):
        scan = surface(2_500, i)
        np.column_stack((scan, np.zeros(len(scan)))).astype("<f4").tofile(
            sequence / "velodyne" / f"{i:06d}.bin"
        )
        np.save(sequence / "truth" / f"{i:06d}.npy", surface(8_000, 10 + i))
    return folder


@pytest.fixture(scope="session")
def batch(street: Path) -> Crop:
    """Two crops of the street."""
    crops = CropDataset(street, CROPS, seed=0, length=2)
    stacked: Crop = default_collate([crops[0], crops[1]])
    return stacked


class LineStage:
    """Fits one linear map of the crops' points; records the batches it saw. `spoil` maps a step to a false loss."""

    def __init__(self, seed: int = 0, width: int = 3, prior: float = 0.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.line = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.config = TeacherConfig(prior_weight=prior)
        self.crops = CROPS
        self.networks: dict[str, nn.Module] = {"line": self.line}
        self.seen: list[Crop] = []
        self.spoil: dict[int, str] = {}

    def loss(self, batch: Crop, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        step = len(self.seen)
        self.seen.append(batch)
        noise = torch.randn(batch.truth.shape, generator=generator)
        loss = self.line((batch.truth + 0.1 * noise).flatten(0, 1)).square().mean()
        if self.spoil.get(step) == "loss":
            loss = loss * torch.nan
        if self.spoil.get(step) == "gradient":
            loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss, {"loss": loss.item()}


@pytest.fixture
def line_stage() -> type[LineStage]:
    """The quick stage."""
    return LineStage


@pytest.fixture(params=NETS.values(), ids=NETS.keys())
def net(request: pytest.FixtureRequest) -> NetConfig:
    """A narrow network in the released form (batch norm) and in the package's own (layer norm)."""
    config: NetConfig = request.param
    return config


def make_teacher(net: NetConfig, **options: float) -> TeacherStage:
    """A teacher whose weights are the same in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TeacherStage(TeacherConfig(net=net, crops=CROPS, **options))  # type: ignore[arg-type]


@pytest.fixture
def teacher() -> Callable[..., TeacherStage]:
    """Makes a small teacher."""
    return make_teacher
