"""The refiner's stage: every parameter learns, and its loss is the Chamfer distance inside the crop."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.training.batch import Batch
from densescan.training.engine import Engine
from densescan.training.refinement import RefinementStage, RefinerConfig
from densescan.weights.folder import ModelConfig, build, read_model, save_model

MakeBatch = Callable[..., Batch]
OWN = NetConfig(width=0.25, norm="layer", voxel_size=0.2, point_features="local")


def make(net: NetConfig, **options: float | str | None) -> RefinementStage:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RefinementStage(RefinerConfig(net=net, **{"repeat": 2, **options}))  # type: ignore[arg-type]


def total(stage: RefinementStage, batch: Batch) -> float:
    loss = stage.loss(batch).total
    assert loss is not None
    return loss.item()


def test_every_parameter_gets_a_gradient(
    net: NetConfig,
    batch: Batch,
    engine: Callable[..., Engine],
    all_learn: Callable[[RefinementStage], None],
) -> None:
    stage = make(net)
    stage.step([batch], engine(stage))
    all_learn(stage)
    assert {name: list(part.networks) for name, part in stage.trained.items()} == {"refiner": ["refiner"]}


def test_the_loss_falls_on_a_fixed_crop(
    net: NetConfig, make_batch: MakeBatch, engine: Callable[..., Engine]
) -> None:
    stage = make(net)
    steps = engine(stage, lr=3e-3)
    losses = [stage.step(make_batch().singly()[:1], steps)["loss"] for _ in range(8)]
    assert losses[-1] < 0.85 * losses[0]


def test_a_refiner_that_moves_nothing_loses_the_distance_of_the_scan(net: NetConfig, batch: Batch) -> None:
    stage = make(net, min_jitter=0.0, max_jitter=0.0)
    torch.nn.init.zeros_(stage.refiner.last[2].weight)
    torch.nn.init.zeros_(stage.refiner.last[2].bias)
    directions = []
    for scan, truth, centre, radius in zip(*(part.double().numpy() for part in batch.crop), strict=True):
        pairs = cdist(scan, truth)
        scan_inside = np.linalg.norm(scan[:, :2] - centre, axis=1) < radius
        truth_inside = np.linalg.norm(truth[:, :2] - centre, axis=1) < radius
        assert 0 < truth_inside.mean() < 1, "the margin of the crop is what the masks are for"
        directions.append((pairs.min(1)[scan_inside].mean(), pairs.min(0)[truth_inside].mean()))
    to_truth, to_scan = np.mean(directions, axis=0)
    loss = stage.loss(batch)
    assert loss.figures["scene_to_truth"] == pytest.approx(to_truth, rel=2e-2)  # a point may sit on the edge
    assert loss.figures["truth_to_scene"] == pytest.approx(to_scan, rel=1e-4)
    assert loss.total is not None
    assert loss.total.item() == pytest.approx((to_truth + to_scan) / 2, rel=2e-2)


def test_jitter_stays_within_its_limits(make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make(OWN, min_jitter=0.2, max_jitter=0.3, repeat=10)
    spreads = []

    def spy(scene: torch.Tensor) -> torch.Tensor:
        spreads.append((scene[0].unflatten(0, (-1, 10)).std(dim=1)).mean().item())
        return scene.repeat_interleave(6, dim=1)

    monkeypatch.setattr(stage.refiner, "forward", spy)
    with torch.no_grad():
        for seed in range(4):
            stage.loss(make_batch(seed))
    assert 0.18 < min(spreads) < max(spreads) < 0.3
    assert max(spreads) - min(spreads) > 0.02, "each crop has a spread of its own"


def test_all_randomness_comes_from_the_draws(make_batch: MakeBatch) -> None:
    losses = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng():
            torch.manual_seed(world)
            losses.append(total(make(OWN), make_batch(seed)))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("options", [{"repeat": 0}, {"min_jitter": 0.6}, {"min_jitter": -0.1}])
def test_impossible_jitter_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="min_jitter <= max_jitter"):
        RefinerConfig(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random model of the tests' own form."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        networks = build(ModelConfig(net=OWN, refiner=OWN))
    save_model(folder, networks, CompletionConfig(sampler="consistent", guidance_scale=1.0), "# Random\n")
    return str(folder)


def test_it_refines_completions_and_trains_the_refiner_alone(
    make_batch: MakeBatch, model: str, engine: Callable[..., Engine], all_learn: Callable[[object], None]
) -> None:
    stage = make(OWN, completer=model, steps=2)
    assert stage.completer is not None
    config = replace(stage.completer.config, steps=2, repeat=2)
    one, again = make_batch(3).singly()[0], make_batch(3).singly()[0]
    expected = stage.completer.sample(one.crop.scan, config, one.draws.noise("sampling"))
    given: list[torch.Tensor] = []
    stage.refiner.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    for net in stage.frozen.values():
        net.requires_grad_(False)  # as the loop does
    stage.step([again], engine(stage))
    assert torch.equal(given[0], expected)
    assert set(stage.results) == {"refiner"}
    assert set(stage.frozen) == {"encoder", "denoiser", "refiner"}
    all_learn(stage)


@pytest.mark.parametrize("completes", [False, True])
def test_crops_are_refined_together_where_statistics_are_frozen(
    make_batch: MakeBatch, model: str, completes: bool
) -> None:
    stage = make(OWN, statistics="frozen", completer=model if completes else None, steps=2)
    stage.refiner.eval()
    calls: list[int] = []
    stage.refiner.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    together = total(stage, make_batch())
    singly = [total(stage, one) for one in make_batch().singly()]
    assert calls == [2, 1, 1]
    assert together == pytest.approx(sum(singly) / 2, rel=1e-4)


def test_validation_tells_the_distance_before_and_after(make_batch: MakeBatch) -> None:
    stage, one = make(OWN, repeat=3), make_batch(3).singly()[0]
    torch.nn.init.zeros_(stage.refiner.last[2].weight)
    torch.nn.init.zeros_(stage.refiner.last[2].bias)
    with torch.no_grad():
        found = stage.validate(one)
    assert list(found.clouds) == ["scan", "unrefined", "refined", "truth"]
    assert len(found.clouds["refined"]) == 6 * len(found.clouds["unrefined"]) == 18 * len(one.crop.scan[0])
    for name in ("cd", "scene_to_truth", "truth_to_scene"):
        assert found.figures[name] == pytest.approx(found.figures[f"unrefined_{name}"]), "nothing has moved"


def test_it_starts_from_a_trained_refiner_of_the_same_form(model: str) -> None:
    trained, _ = read_model(model)
    assert trained.refiner is not None
    stage = make(OWN, start_from=model)
    for ours, theirs in zip(stage.refiner.parameters(), trained.refiner.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(InputError, match="no refiner of this form"):
        make(NetConfig(width=0.25), start_from=model)
