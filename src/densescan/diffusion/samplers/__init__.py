"""Samplers, one function per algorithm, all with the signature of `Sampler` and no state between calls."""

from densescan.diffusion.samplers.consistent import consistent, renoise
from densescan.diffusion.samplers.ddim import ddim
from densescan.diffusion.samplers.ddpm import ddpm
from densescan.diffusion.samplers.dpm_solver import dpm_solver_pp
from densescan.diffusion.samplers.interface import EpsFn, NoiseFn, OnStep, Sampler, gaussian, gaussian_ahead

__all__ = [
    "EpsFn",
    "NoiseFn",
    "OnStep",
    "Sampler",
    "consistent",
    "ddim",
    "ddpm",
    "dpm_solver_pp",
    "gaussian",
    "gaussian_ahead",
    "renoise",
]
