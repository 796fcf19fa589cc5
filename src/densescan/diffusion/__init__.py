"""Local point diffusion: schedule, noising process, guidance and samplers, on tensors of any dimension."""

from densescan.diffusion.guidance import guide
from densescan.diffusion.process import add_noise, noise_scene
from densescan.diffusion.samplers import (
    consistent,
    ddim,
    ddpm,
    dpm_solver_pp,
    gaussian,
    gaussian_ahead,
    renoise,
)
from densescan.diffusion.schedule import Schedule

__all__ = [
    "Schedule",
    "add_noise",
    "consistent",
    "ddim",
    "ddpm",
    "dpm_solver_pp",
    "gaussian",
    "gaussian_ahead",
    "guide",
    "noise_scene",
    "renoise",
]
