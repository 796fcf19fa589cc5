"""The running average of the weights: what a run is judged by and what it leaves behind."""

import copy

import torch
from torch import nn


def start_averages(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Copies of the networks, without gradient and in evaluation mode."""
    return {name: copy.deepcopy(net).requires_grad_(False).eval() for name, net in networks.items()}


def decay_after(steps: int, ema: float) -> float:
    """min(ema, steps / (steps + 10)): early on the average is short, so that it forgets the initial weights.

    Args: steps: optimiser steps done, at least 1. ema: decay of a long run, below 1.
    """
    return min(ema, steps / (steps + 10))


@torch.no_grad()
def update_averages(averages: dict[str, nn.Module], networks: dict[str, nn.Module], decay: float) -> None:
    """averages = decay * averages + (1 - decay) * networks; buffers (running statistics) are copied."""
    for name, net in networks.items():
        for mean, value in zip(averages[name].parameters(), net.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, buffer in zip(averages[name].buffers(), net.buffers(), strict=True):
            kept.copy_(buffer)
