"""The refiner's stage: every parameter learns, and its loss is the Chamfer distance inside the crop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from densescan.completer import CompletionConfig
from densescan.data.dataset import Crop
from densescan.diffusion import gaussian
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.training.refinement import RefinementStage, RefinerConfig
from densescan.weights.folder import ModelConfig, build, read_model, save_model

OWN = NetConfig(width=0.25, norm="layer", voxel_size=0.2, point_features="local")


def make(net: NetConfig, **options: float | str) -> RefinementStage:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RefinementStage(RefinerConfig(net=net, **{"repeat": 2, **options}))  # type: ignore[arg-type]


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_parameter_gets_a_gradient(net: NetConfig, batch: Crop) -> None:
    stage = make(net)
    stage.loss(batch, noise())[0].backward()
    for key, parameter in stage.refiner.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert parameter.grad.abs().max() > 0, key


def test_the_loss_falls_on_a_fixed_crop(net: NetConfig, batch: Crop) -> None:
    stage, one = make(net), Crop(*(part[:1] for part in batch))
    optimiser = torch.optim.Adam(stage.refiner.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = stage.loss(one, noise())[0]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_a_refiner_that_moves_nothing_loses_the_distance_of_the_scan(net: NetConfig, batch: Crop) -> None:
    stage = make(net, min_jitter=0.0, max_jitter=0.0)
    torch.nn.init.zeros_(stage.refiner.last[2].weight)
    torch.nn.init.zeros_(stage.refiner.last[2].bias)
    directions = []
    for scan, truth, centre, radius in zip(*(part.double().numpy() for part in batch), strict=True):
        pairs = cdist(scan, truth)
        scan_inside = np.linalg.norm(scan[:, :2] - centre, axis=1) < radius
        truth_inside = np.linalg.norm(truth[:, :2] - centre, axis=1) < radius
        assert 0 < truth_inside.mean() < 1, "the margin of the crop is what the masks are for"
        directions.append((pairs.min(1)[scan_inside].mean(), pairs.min(0)[truth_inside].mean()))
    to_truth, to_scan = np.mean(directions, axis=0)
    loss, logs = stage.loss(batch, noise())
    assert logs["scene_to_truth"] == pytest.approx(to_truth, rel=2e-2)  # a point may sit on the crop's edge
    assert logs["truth_to_scene"] == pytest.approx(to_scan, rel=1e-4)
    assert loss.item() == logs["loss"] == pytest.approx((to_truth + to_scan) / 2, rel=2e-2)


def test_jitter_stays_within_its_limits(batch: Crop, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make(OWN, min_jitter=0.2, max_jitter=0.3, repeat=10)
    spreads = []

    def spy(scene: torch.Tensor) -> torch.Tensor:
        spreads.append((scene[0].unflatten(0, (-1, 10)).std(dim=1)).mean().item())
        return scene.repeat_interleave(6, dim=1)

    monkeypatch.setattr(stage.refiner, "forward", spy)
    with torch.no_grad():
        for seed in range(4):
            stage.loss(batch, noise(seed))
    assert 0.18 < min(spreads) < max(spreads) < 0.3
    assert max(spreads) - min(spreads) > 0.02, "each crop has a spread of its own"


def test_all_randomness_comes_from_the_generator(batch: Crop) -> None:
    losses = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng():
            torch.manual_seed(world)
            losses.append(make(OWN).loss(batch, noise(seed))[0].item())
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


def test_it_refines_completions_and_trains_the_refiner_alone(batch: Crop, model: str) -> None:
    stage = make(OWN, completer=model, steps=2)
    assert stage.completer is not None
    scan = batch.scan[0]
    config = replace(stage.completer.config, steps=2, repeat=2)
    expected = stage.completer.sample(scan, config, gaussian(noise(3)))
    given: list[torch.Tensor] = []
    stage.refiner.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0][0]))
    loss, _ = stage.loss(Crop(*(part[:1] for part in batch)), noise(3))
    loss.backward()
    assert torch.equal(given[0], expected)
    assert set(stage.networks) == {"refiner"}
    assert all(p.grad is not None for p in stage.refiner.parameters())
    networks = stage.completer.networks.present()
    assert all(p.grad is None for name in ("encoder", "denoiser") for p in networks[name].parameters())


def test_it_starts_from_a_trained_refiner_of_the_same_form(model: str) -> None:
    trained, _ = read_model(model)
    assert trained.refiner is not None
    stage = make(OWN, start_from=model)
    for ours, theirs in zip(stage.refiner.parameters(), trained.refiner.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(InputError, match="no refiner of this form"):
        make(NetConfig(width=0.25), start_from=model)
