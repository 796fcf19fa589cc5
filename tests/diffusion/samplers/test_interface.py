"""What holds for every sampler alike: shapes, frames, independence, gradients, errors."""

from functools import partial
from inspect import signature

import pytest
import torch

from densescan.diffusion import consistent, ddim, ddpm, dpm_solver_pp, gaussian, gaussian_ahead, renoise
from densescan.diffusion.samplers import Sampler
from densescan.diffusion.samplers.interface import check_share, predict_eps, start_offset
from densescan.errors import InputError

SAMPLERS = {
    "dpm-solver++": dpm_solver_pp,
    "dpm-solver++ new": partial(dpm_solver_pp, last_step="diffusers-new"),
    "ddpm": ddpm,
    "ddim": ddim,
    "ddim eta": partial(ddim, eta=0.6),
    "consistent": consistent,
    "consistent eta": partial(consistent, eta=0.6),
    "renoise": renoise,
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def curved(x_t, t):
    return torch.tanh(0.7 * x_t + 0.1 * torch.cos(t / 100)) + 0.05 * x_t


def seeded(seed=0):
    return gaussian(torch.Generator().manual_seed(seed))


def draw(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sampler", [consistent, ddim, ddpm, dpm_solver_pp, renoise])
def test_all_share_one_signature(sampler):
    assert isinstance(sampler, Sampler)
    shared = [p for p in signature(Sampler.__call__).parameters.values() if p.name != "self"]
    own = signature(sampler).parameters
    assert [(own[p.name].kind, own[p.name].default) for p in shared] == [(p.kind, p.default) for p in shared]
    assert all(p.default is not p.empty for p in own.values() if p.name not in {s.name for s in shared})


@every_sampler
@pytest.mark.parametrize("shape", [(5,), (6, 2), (2, 4, 3)])
def test_any_shape_is_sampled_and_every_step_is_seen(schedule, sampler, shape):
    seen, asked = [], []

    def eps_fn(x_t, t):
        assert x_t.shape == shape
        assert (t.shape, t.dtype) == ((), torch.int64)
        asked.append(t.item())
        return curved(x_t, t)

    x_T = draw(*shape)
    x_0 = sampler(eps_fn, torch.zeros_like(x_T), x_T, schedule, 4, noise=seeded(),
                  on_step=lambda i, x: seen.append((i, x)))  # fmt: skip
    assert asked == [999, 749, 500, 250]
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], x_0)
    assert (x_0.shape, x_0.dtype) == (shape, torch.float64)


@every_sampler
def test_calls_are_independent_and_the_seed_decides(schedule, sampler):
    x_T = draw(8, 3)

    def sample(seed):
        return sampler(curved, torch.zeros_like(x_T), x_T, schedule, 5, noise=seeded(seed))

    before = torch.random.get_rng_state()
    first, again, other = sample(0), sample(0), sample(1)
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)
    uses_noise = not (sampler is consistent or sampler is ddim)
    assert torch.equal(first, other) is not uses_noise


@every_sampler
def test_moving_the_scan_moves_the_scene(schedule, sampler):
    x_init, x_T, shift = draw(8, 3, seed=1), draw(8, 3, seed=2), torch.tensor([30.0, -20.0, 2.0])
    here = sampler(curved, x_init, x_T, schedule, 6, noise=seeded())
    there = sampler(
        lambda x, t: curved(x - shift, t), x_init + shift, x_T + shift, schedule, 6, noise=seeded()
    )
    torch.testing.assert_close(there, here + shift, rtol=0, atol=1e-10)


@every_sampler
def test_points_do_not_see_each_other(schedule, sampler):
    x_T, draws = draw(8, 3), draw(6, 8, 3, seed=3)

    def sample(rows):
        noise = iter(draws[:, rows])
        return sampler(
            curved, torch.zeros_like(x_T[rows]), x_T[rows], schedule, 6, noise=lambda _: next(noise)
        )

    torch.testing.assert_close(sample(slice(2, 5)), sample(slice(None))[2:5], rtol=0, atol=1e-12)


@every_sampler
def test_gradients_equal_finite_differences(schedule, sampler):
    x_T, weight = draw(3, 2), torch.tensor([0.7, 0.3], dtype=torch.float64, requires_grad=True)

    def sample(weight, x_T):
        return sampler(
            lambda x, t: torch.tanh(weight * x), torch.zeros_like(x_T), x_T, schedule, 3, noise=seeded()
        )

    assert torch.autograd.gradcheck(sample, (weight, x_T.requires_grad_()))


@every_sampler
def test_the_last_step_alone_can_be_trained(schedule, sampler):
    net = torch.nn.Linear(3, 3).double()
    last = schedule.timesteps(4)[-1]

    def eps_fn(x_t, t):
        with torch.set_grad_enabled(t.item() == last):
            return net(x_t)

    x_T = draw(9, 3)
    x_0 = sampler(eps_fn, torch.zeros_like(x_T), x_T, schedule, 4, noise=seeded())
    x_0.square().mean().backward()
    assert all(p.grad.abs().min() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("sampler", "factor"), [(SAMPLERS["dpm-solver++ new"], 5.74), (ddim, 5.74), (consistent, 0.985)]
)
def test_an_error_of_eps_is_amplified_as_documented(schedule, sampler, factor):
    x_T, none = torch.zeros(1), torch.zeros(1)
    error = sampler(lambda x, t: none + 1, none, x_T, schedule, 1) - sampler(
        lambda x, t: none, none, x_T, schedule, 1
    )
    assert abs(error.item()) == pytest.approx(factor, abs=0.01)


def test_gaussian_is_standard_normal_in_the_dtype_asked_for():
    noise = seeded()(torch.empty(40_000, dtype=torch.float64))
    assert noise.dtype == torch.float64
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    source = seeded()
    assert not torch.equal(source(torch.empty(4)), source(torch.empty(4)))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(InputError, match=r"one shape, got \(1, 3\) and \(4, 3\)"):
        start_offset(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(InputError, match=r"shaped as its points \(4, 3\), got \(4, 1\)"):
        predict_eps(lambda x, t: x[:, :1], torch.zeros(4, 3), 5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_impossible_shares_of_noise_are_refused(share):
    with pytest.raises(InputError, match=r"eta must lie in \[0, 1\]"):
        check_share("eta", share, seeded())


@pytest.mark.parametrize("sampler", [ddpm, partial(ddim, eta=0.5), partial(consistent, eta=0.5), renoise])
def test_fresh_noise_needs_a_source(schedule, sampler):
    with pytest.raises(InputError, match="noise=None; pass noise=gaussian"):
        sampler(curved, torch.zeros(2), torch.zeros(2), schedule, 2)


@every_sampler
def test_impossible_numbers_of_steps_are_refused(schedule, sampler):
    with pytest.raises(InputError, match="steps must lie in"):
        sampler(curved, torch.zeros(2), torch.zeros(2), schedule, 0, noise=seeded())


def test_noise_drawn_ahead_is_the_same():
    like = torch.empty(3, 5)
    at_once, ahead = (
        gaussian(torch.Generator().manual_seed(4)),
        gaussian_ahead(torch.Generator().manual_seed(4), (3, 5)),
    )
    for _ in range(4):
        assert torch.equal(ahead(like), at_once(like))
