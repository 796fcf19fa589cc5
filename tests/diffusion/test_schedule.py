"""The schedule against its recurrence in float64, diffusers, and the steps recorded from the releases."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.diffusion.schedule import CLEAN, Schedule
from densescan.errors import InputError

ARRAYS = Path(__file__).parents[1] / "data_arrays" / "sampler_small.npz"


def test_tables_follow_the_recurrence_in_float64(schedule):
    survived = 1.0
    for t in range(schedule.T):
        survived *= 1 - (3.5e-5 + (0.007 - 3.5e-5) * t / 999)
        assert schedule.alphas_cumprod[t].item() == pytest.approx(survived, rel=2e-5)
    assert schedule.alphas_cumprod.dtype == torch.float32
    assert schedule.sigma_t[-1].item() == pytest.approx(0.985, abs=5e-4)
    assert (schedule.sigma_t / schedule.alpha_t)[-1].item() == pytest.approx(5.7, abs=0.1)


def test_tables_equal_diffusers(schedule, diffusers):
    theirs = diffusers.DPMSolverMultistepScheduler(beta_start=3.5e-5, beta_end=0.007, beta_schedule="linear")
    for name in ("betas", "alphas_cumprod", "alpha_t", "sigma_t", "lambda_t"):
        assert torch.equal(getattr(schedule, name), getattr(theirs, name)), name


@pytest.mark.parametrize("version", ["0.18.0", "0.42.1"])
def test_tables_and_steps_equal_the_recorded_ones(schedule, shared, version):
    recorded = np.load(shared / "reference" / f"sampler_diffusers_{version}.npz")
    for name in ("betas", "alphas_cumprod", "alpha_t", "sigma_t", "lambda_t"):
        np.testing.assert_array_equal(getattr(schedule, name).numpy(), recorded[name])
    for steps in (50, 8, 4, 2, 1):
        assert schedule.timesteps(steps) == recorded[f"timesteps_{steps}"].tolist()


def test_steps_equal_the_arrays_of_the_repository(schedule):
    recorded = np.load(ARRAYS)
    for steps in (8, 2, 1):
        assert schedule.timesteps(steps) == recorded[f"timesteps_{steps}"].tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 3, 7, 15, 333, 998, 999])
def test_steps_equal_diffusers_for_any_number(schedule, diffusers, steps):
    theirs = diffusers.DPMSolverMultistepScheduler(beta_start=3.5e-5, beta_end=0.007, beta_schedule="linear")
    theirs.set_timesteps(steps)
    assert schedule.timesteps(steps) == theirs.timesteps.tolist()


def test_no_step_is_visited_twice(schedule):
    assert schedule.timesteps(1000) == schedule.timesteps(999) == list(range(999, 0, -1))


@pytest.mark.parametrize("steps", range(1, 40))
def test_steps_descend_strictly_from_the_noisiest_and_leave_out_zero(steps):
    ts = Schedule(T=40).timesteps(steps)
    assert ts[0] == 39
    assert ts[-1] > 0
    assert all(a > b for a, b in pairwise(ts))


def test_levels_end_where_told(schedule):
    assert [level.t for level in schedule.levels(2)] == [999, 500, CLEAN.t]
    assert [level.t for level in schedule.levels(2, end=schedule.level(0))] == [999, 500, 0]
    level = schedule.level(500)
    assert level.half_log_snr == pytest.approx(math.log(level.alpha / level.sigma), abs=1e-6)
    assert level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-6)


def test_schedule_is_a_value():
    assert Schedule() == Schedule(3.5e-5, 0.007, 1000)
    assert hash(Schedule()) == hash(Schedule())
    assert Schedule(T=10).betas.shape == (10,)
    with pytest.raises(AttributeError):
        Schedule().T = 5


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(schedule, steps):
    with pytest.raises(InputError, match=rf"steps must lie in \[1, 1000\], got {steps}"):
        schedule.timesteps(steps)


@pytest.mark.parametrize("t", [-1, 1000])
def test_levels_outside_the_schedule_are_refused(schedule, t):
    with pytest.raises(InputError, match=rf"got {t}"):
        schedule.level(t)


@pytest.mark.parametrize("betas", [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0)])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(InputError, match="beta_start <= beta_end"):
        Schedule(*betas)


def test_a_schedule_needs_two_levels():
    with pytest.raises(InputError, match="at least 2"):
        Schedule(T=1)
