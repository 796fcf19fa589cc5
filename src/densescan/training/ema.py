"""The running average of the weights: what a run is judged by and what it leaves behind."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


def start_averages(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Copies of the networks, without gradient and in evaluation mode."""
    return {name: copy.deepcopy(net).requires_grad_(False).eval() for name, net in networks.items()}


def decay_after(steps: int, ema: float) -> float:
    """min(ema, steps / (steps + 10)): early on the average is short, so that it forgets the initial weights.

    Args: steps: steps done, at least 1. ema: decay of a long run, below 1.
    """
    return min(ema, steps / (steps + 10))


@torch.no_grad()
def update_averages(
    averages: Mapping[str, nn.Module], networks: Mapping[str, nn.Module], decay: float
) -> None:
    """averages = decay * averages + (1 - decay) * networks; buffers (running statistics) are copied."""
    for name, net in networks.items():
        torch._foreach_lerp_(list(averages[name].parameters()), list(net.parameters()), 1 - decay)
        for kept, buffer in zip(averages[name].buffers(), net.buffers(), strict=True):
            kept.copy_(buffer)


@contextmanager
def exchanged(averages: Mapping[str, nn.Module], networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the block the networks have the averages' weights and statistics, and the averages theirs; no copies."""
    _exchange(averages, networks)
    try:
        yield
    finally:
        _exchange(averages, networks)


def _exchange(averages: Mapping[str, nn.Module], networks: Mapping[str, nn.Module]) -> None:
    for name, net in networks.items():
        ours = (*net.parameters(), *net.buffers())
        theirs = (*averages[name].parameters(), *averages[name].buffers())
        for one, other in zip(ours, theirs, strict=True):
            one.data, other.data = other.data, one.data
