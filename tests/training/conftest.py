"""A made-up street of two frames, a stage that trains in milliseconds, and small forms of the real stages."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from densescan.data.dataset import Crop, CropConfig, CropDataset
from densescan.nets.minkunet import NetConfig
from densescan.training.batch import Batch, Loss, Validation
from densescan.training.batch_norm import Statistics
from densescan.training.config import LoopConfig
from densescan.training.draws import Draws
from densescan.training.engine import Engine, Trained
from densescan.training.processes import Processes
from densescan.training.stage import Stage
from densescan.training.teacher import TeacherConfig, TeacherStage

CROPS = CropConfig(
    scan_points=150, truth_points=300, min_reduced=600, max_reduced=800, max_range=20.0, truth_margin=0.5
)
NETS = {
    "released": NetConfig(width=0.125, voxel_size=0.2),
    "own": NetConfig(width=0.125, norm="layer", voxel_size=0.2, point_features="local", see_scan=True),
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
def crop(street: Path) -> Crop:
    """Two crops of the street."""
    crops = CropDataset(street, CROPS, seed=0, length=2)
    stacked: Crop = default_collate([crops[0], crops[1]])
    return stacked


@pytest.fixture
def make_batch(crop: Crop) -> Callable[..., Batch]:
    """Makes a batch of the two crops, whose random numbers begin anew; the seed is theirs."""
    return lambda seed=0: Batch(crop, Draws(seed, (0, 1)))


@pytest.fixture
def batch(make_batch: Callable[..., Batch]) -> Batch:
    """A batch of the two crops."""
    return make_batch()


class LineStage:
    """Fits one linear map of the crops' points; records the batches it saw. `spoil` maps a step to a false loss."""

    def __init__(self, seed: int = 0, width: int = 3, prior: float = 0.0, guide: float = 2.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.line = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.guide = nn.Linear(1, 1)
        nn.init.constant_(self.guide.weight, guide)
        nn.init.zeros_(self.guide.bias)
        self.config = TeacherConfig(prior_weight=prior)
        self.crops = CROPS
        self.statistics: Statistics = "updated"
        self.results: dict[str, nn.Module] = {"line": self.line}
        self.frozen: dict[str, nn.Module] = {"guide": self.guide}
        self.seen: list[Batch] = []
        self.spoil: dict[int, str] = {}

    @property
    def trained(self) -> dict[str, Trained]:
        return {"line": Trained(self.results, statistics={"line": self.statistics})}

    def step(self, batches: Sequence[Batch], engine: Engine) -> dict[str, float]:
        return engine.update("line", (self.loss(batch, engine.step) for batch in batches))

    def loss(self, batch: Batch, step: int = 0) -> Loss:
        self.seen.append(batch)
        points = batch.crop.truth.to(self.line[0].weight)
        noised = points + 0.1 * batch.draws.normal("noise", points)
        loss = self.guide(self.line(noised.flatten(0, 1))).square().mean()
        if self.spoil.get(step) == "loss":
            loss = loss * torch.nan
        if self.spoil.get(step) == "gradient":
            loss.register_hook(lambda gradient: gradient * torch.inf)
        return Loss(loss, {"spread": noised.std().item()})

    def validate(self, batch: Batch) -> Validation:
        truth = batch.crop.truth[0]
        found = {"offset": self.line(truth).abs().mean().item(), "draw": batch.draws.uniform("draw").item()}
        return Validation(found, {"scan": batch.crop.scan[0], "truth": truth})


@pytest.fixture
def line_stage() -> type[LineStage]:
    """The quick stage."""
    return LineStage


@pytest.fixture(params=NETS.values(), ids=NETS.keys())
def net(request: pytest.FixtureRequest) -> NetConfig:
    """A narrow network in the released form (batch norm) and in the package's own (layer norm)."""
    config: NetConfig = request.param
    return config


def make_teacher(net: NetConfig, **options: float | str) -> TeacherStage:
    """A teacher whose weights are the same in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TeacherStage(TeacherConfig(net=net, crops=CROPS, **options))  # type: ignore[arg-type]


@pytest.fixture
def teacher() -> Callable[..., TeacherStage]:
    """Makes a small teacher."""
    return make_teacher


def make_engine(stage: Stage, **loop: object) -> Engine:
    """The engine of a stage, with a constant learning rate and no autocast unless it is asked for."""
    defaults = {"schedule": "constant", "warmup_steps": 0, "bfloat16": False, "cpu": True, "clip": 1e9}
    return Engine(stage.trained, LoopConfig(**{**defaults, **loop}), Processes(cpu=True))  # type: ignore[arg-type]


@pytest.fixture
def engine() -> Callable[..., Engine]:
    """Makes an engine."""
    return make_engine


def check_gradients(stage: Stage) -> None:
    """Every trained parameter has a gradient that is finite and not zero; frozen networks have none."""
    for part in stage.trained.values():
        for name, net in part.networks.items():
            for key, parameter in net.named_parameters():
                assert parameter.grad is not None, f"{name} {key}"
                assert bool(torch.isfinite(parameter.grad).all()), f"{name} {key}"
                assert parameter.grad.abs().max() > 0, f"{name} {key}"
    for name, net in stage.frozen.items():
        assert not any(module.training for module in net.modules()), name
        for key, parameter in net.named_parameters():
            assert parameter.grad is None, f"{name} {key}"
            assert not parameter.requires_grad, f"{name} {key}"


@pytest.fixture
def all_learn() -> Callable[[Stage], None]:
    """Checks the gradients that a step left behind."""
    return check_gradients
