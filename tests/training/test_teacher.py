"""The teacher's stage: every parameter learns, and unconditional samples leave no trace in the statistics."""

from collections.abc import Callable

import pytest
import torch

from densescan.data.dataset import Crop
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.training.teacher import TeacherConfig, TeacherStage

Make = Callable[..., TeacherStage]
OWN = NetConfig(width=0.25, norm="layer", voxel_size=0.2, point_features="local", see_scan=True)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def running_statistics(stage: TeacherStage) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in stage.encoder.named_buffers()}


def test_every_parameter_gets_a_gradient(teacher: Make, net: NetConfig, batch: Crop) -> None:
    stage = teacher(net, uncond_prob=0.0)
    stage.loss(batch, noise())[0].backward()
    for name, network in stage.networks.items():
        for key, parameter in network.named_parameters():
            gradient = parameter.grad
            assert gradient is not None, f"{name} {key}"
            assert bool(torch.isfinite(gradient).all()), f"{name} {key}"
            assert gradient.abs().max() > 0, f"{name} {key}"


def test_the_loss_falls_on_a_fixed_crop(teacher: Make, net: NetConfig, batch: Crop) -> None:
    stage = teacher(net, uncond_prob=0.0, prior_weight=0.0)
    optimiser = torch.optim.Adam([p for n in stage.networks.values() for p in n.parameters()], lr=3e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = stage.loss(batch, noise())[0]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_the_loss_is_that_of_the_drawn_noise(teacher: Make, batch: Crop, net: NetConfig) -> None:
    stage = teacher(net, uncond_prob=0.0, prior_weight=0.0)
    torch.nn.init.zeros_(stage.denoiser.last[2].weight)
    torch.nn.init.zeros_(stage.denoiser.last[2].bias)
    generator = noise(5)
    torch.randint(1000, (2,), generator=generator)
    eps = torch.randn(batch.truth.shape, generator=generator)
    loss, logs = stage.loss(batch, noise(5))
    assert loss.item() == pytest.approx(eps.square().mean().item()), (
        "a prediction of zero misses all the noise"
    )
    assert logs["loss"] == logs["mse"] == loss.item()


def test_all_randomness_comes_from_the_generator(teacher: Make, batch: Crop) -> None:
    losses = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng():
            torch.manual_seed(world)
            losses.append(teacher(OWN).loss(batch, noise(seed))[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_unconditional_samples_leave_the_running_statistics_alone(
    teacher: Make, net: NetConfig, batch: Crop
) -> None:
    states = []
    for probability in (0.0, 1.0):
        stage = teacher(net, uncond_prob=probability)
        before = running_statistics(stage)
        stage.loss(batch, noise())
        states.append(running_statistics(stage))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    if net.norm == "batch":
        assert any(not torch.equal(before[key], states[0][key]) for key in before), (
            "the scans must enter them"
        )
    else:
        assert not before


def test_the_null_condition_is_that_of_sampling(teacher: Make, net: NetConfig, batch: Crop) -> None:
    stage = teacher(net)
    stage.loss(batch, noise())
    null = stage._null_condition()
    assert stage.encoder.training, "evaluation mode is for the null scan alone"
    sampled = stage.encoder.eval().unconditional()
    assert torch.equal(null.feats, sampled.feats)
    assert torch.equal(null.voxels.keys, sampled.voxels.keys)


def test_unconditional_samples_do_not_see_their_scan(teacher: Make, batch: Crop) -> None:
    other = batch._replace(scan=batch.scan + torch.tensor([0.0, 0.0, 1.5]))
    blind, seeing = teacher(OWN, uncond_prob=1.0), teacher(OWN, uncond_prob=0.0)
    assert blind.loss(batch, noise())[0].item() == blind.loss(other, noise())[0].item()
    assert seeing.loss(batch, noise())[0].item() != seeing.loss(other, noise())[0].item()


def test_unconditional_samples_train_the_encoder(teacher: Make, batch: Crop, net: NetConfig) -> None:
    stage = teacher(net, uncond_prob=1.0)
    with (
        torch.no_grad()
    ):  # one voxel at the origin has features through the biases alone, which begin at zero
        for key, parameter in stage.encoder.named_parameters():
            if key.endswith("bias"):
                parameter += 0.1
    stage.loss(batch, noise())[0].backward()
    for key, parameter in stage.encoder.stage4.named_parameters():
        if key.endswith("bias"):
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("options", [{"uncond_prob": 1.1}, {"uncond_prob": -0.1}, {"prior_weight": -1.0}])
def test_impossible_weights_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected uncond_prob in"):
        TeacherConfig(**options)  # type: ignore[arg-type]
