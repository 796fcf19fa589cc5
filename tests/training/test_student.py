"""The student's sample: the sampler's own, with the gradient of its last step alone."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densescan.completion import CompletionConfig
from densescan.diffusion.samplers import consistent, dpm_solver_pp, gaussian
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.nets.refiner import Refiner
from densescan.training.batch import Batch
from densescan.training.student import LastStepSampler, crop_points, open_model, predictor, trainable_copy
from densescan.weights.folder import save_model

stages = runpy.run_path(str(Path(__file__).with_name("stages.py")))
SCHEDULE = Schedule()
SAMPLERS = ("consistent", "renoise", "sde-dpm-solver++", "dpm-solver++", "ddim", "ddpm")


class Line:
    """A predictor with one weight, which counts how often it is asked with and without gradient."""

    def __init__(self) -> None:
        self.weight = torch.tensor(0.3, requires_grad=True)
        self.asked: list[tuple[int, bool]] = []

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.asked.append((int(t), torch.is_grad_enabled()))
        return self.weight * x_t.sin()


def starts() -> tuple[Tensor, Tensor]:
    x_init, eps = torch.randn(2, 2, 7, 3, generator=torch.Generator().manual_seed(0))
    return x_init, x_init + eps


def sampler(name: str = "consistent", **options: float) -> LastStepSampler:
    return LastStepSampler(CompletionConfig(sampler=name, **options), SCHEDULE)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_last_step_is_taken_again_to_the_same_sample(name: str, steps: int) -> None:
    line, noise = Line(), gaussian(torch.Generator().manual_seed(1))
    sample = sampler(name, eta=0.5).sample(line, *starts(), steps, noise)
    assert line.asked == [(t, False) for t in SCHEDULE.timesteps(steps)]
    assert not sample.x_0.requires_grad
    x_0 = sampler(name, eta=0.5).last_step(line, sample)
    assert line.asked[steps:] == [(SCHEDULE.timesteps(steps)[-1], True)], "one prediction, with gradient"
    assert torch.equal(x_0, sample.x_0)
    assert x_0.requires_grad
    again = sampler(name, eta=0.5).last_step(line, sample)
    assert torch.equal(again, x_0), "it can be taken any number of times"


def test_it_samples_as_the_model_does() -> None:
    line, (x_init, x_T) = Line(), starts()

    def noise() -> object:
        return gaussian(torch.Generator().manual_seed(1))

    with torch.no_grad():
        ours = sampler("sde-dpm-solver++").sample(line, x_init, x_T, 4, noise())  # type: ignore[arg-type]
        released = dpm_solver_pp(line, x_init, x_T, SCHEDULE, 4, noise=noise())  # type: ignore[arg-type]
        newer = LastStepSampler(CompletionConfig(last_step="diffusers-new"), SCHEDULE)
        noiseless = dpm_solver_pp(line, x_init, x_T, SCHEDULE, 4, noise=noise(), last_step="diffusers-new")  # type: ignore[arg-type]
        own = consistent(line, x_init, x_T, SCHEDULE, 4)
    assert torch.equal(ours.x_0, released)
    assert torch.equal(newer.sample(line, x_init, x_T, 4, noise()).x_0, noiseless)  # type: ignore[arg-type]
    assert torch.equal(sampler().sample(line, x_init, x_T, 4, noise()).x_0, own)  # type: ignore[arg-type]


def test_one_step_in_closed_form() -> None:
    """Eq. 1 undone, and the released x_0 = (x - sigma eps) / alpha, whose errors are 5.7 times as large."""
    (x_init, x_T), last = starts(), SCHEDULE.level(999)
    eps = torch.full_like(x_init, 0.25).requires_grad_()
    found = {}
    for name in ("consistent", "sde-dpm-solver++"):
        ways = LastStepSampler(CompletionConfig(sampler=name, last_step="diffusers-new"), SCHEDULE)  # type: ignore[arg-type]
        sample = ways.sample(lambda x_t, t: eps, x_init, x_T, 1, torch.zeros_like)
        x_0 = ways.last_step(lambda x_t, t: eps, sample)
        (slope,) = torch.autograd.grad(x_0.sum(), eps)
        found[name] = (x_0.detach(), slope)
    own, slope = found["consistent"]
    torch.testing.assert_close(own, x_T - last.sigma * eps.detach())
    torch.testing.assert_close(slope, torch.full_like(slope, -last.sigma))
    released, slope = found["sde-dpm-solver++"]
    torch.testing.assert_close(released, x_init + (x_T - x_init - last.sigma * eps.detach()) / last.alpha)
    torch.testing.assert_close(slope, torch.full_like(slope, -last.sigma / last.alpha))
    assert 5.6 < last.sigma / last.alpha < 5.8


def test_the_gradient_is_that_of_the_last_prediction_alone() -> None:
    line, steps = Line(), 3
    ways = sampler()
    sample = ways.sample(line, *starts(), steps, torch.zeros_like)
    seen: list[Tensor] = []

    def spy(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(x_t)
        return line(x_t, t)

    (slope,) = torch.autograd.grad(ways.last_step(spy, sample).sum(), line.weight)
    last = SCHEDULE.level(SCHEDULE.timesteps(steps)[-1])
    assert slope.item() == pytest.approx(-last.sigma * seen[0].sin().sum().item(), rel=1e-4)


def test_a_sample_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(FloatingPointError, match="a sample is not finite; the last checkpoint is sound"):
        sampler().sample(lambda x_t, t: x_t * torch.nan, *starts(), 1, torch.zeros_like)


def test_a_crop_starts_from_its_points_within_the_radius(batch: Batch) -> None:
    n = stages["CROPS"].scan_points
    x_init = crop_points(batch, n, 3)
    assert x_init.shape == (2, 3 * n, 3)
    assert torch.equal(x_init[:, n : 2 * n], batch.crop.scan[:, :n])
    away = (batch.crop.scan[..., :2] - batch.crop.centre[:, None]).norm(dim=2)
    assert bool((away[:, :n] <= batch.crop.radius[:, None] + 1e-4).all())
    assert bool((away[:, n:] >= batch.crop.radius[:, None] - 1e-4).all()), "the others are beyond"


def test_a_model_is_opened_to_be_asked(tmp_path: Path) -> None:
    net, completion = stages["FORMS"]["released"]
    model = open_model(stages["save_teacher"](tmp_path, "released"))
    assert model.denoiser.config == net
    assert model.completion == completion
    for network in (model.encoder, model.denoiser):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    copy = trainable_copy(model.denoiser)
    assert all(parameter.requires_grad for parameter in copy.parameters())
    assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())
    assert stages["equal"](stages["weights"](copy), stages["weights"](model.denoiser))


def test_predictions_are_guided_where_it_is_asked(tmp_path: Path, batch: Batch) -> None:
    model, scan = open_model(stages["save_teacher"](tmp_path)), batch.crop.scan
    x_t, t = crop_points(batch, 150, 1), torch.tensor(700)
    plain, guided = (predictor(*model[:2], scan, scale)(x_t, t) for scale in (1.0, 2.5))
    uncond = model.denoiser(x_t, t.expand(2), model.encoder.unconditional(2))
    torch.testing.assert_close(plain, model.denoiser(x_t, t.expand(2), model.encoder(scan)))
    torch.testing.assert_close(guided, uncond + 2.5 * (plain - uncond))
    assert (guided - plain).abs().max() > 1e-3


def test_models_that_cannot_teach_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model .*nowhere: expected a folder"):
        open_model(str(tmp_path / "nowhere"))
    refiner = Networks(refiner=Refiner(NetConfig(width=0.25)))
    save_model(tmp_path / "refiner", refiner, CompletionConfig(), "# Refiner\n")
    with pytest.raises(
        InputError, match="with encoder and denoiser, it holds refiner: train a teacher first"
    ):
        open_model(str(tmp_path / "refiner"))
    own = stages["save_teacher"](tmp_path / "own")
    with pytest.raises(InputError, match="expected networks of the teacher's form"):
        open_model(own, NetConfig(width=0.25))
