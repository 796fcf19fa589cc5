"""Optimiser steps: gradients averaged over batches and processes, checked, clipped, at the scheduled rate."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densescan.training.batch import Loss, mean_figures
from densescan.training.batch_norm import Statistics
from densescan.training.config import LoopConfig, learning_rate
from densescan.training.processes import Processes


@dataclass(frozen=True)
class Trained:
    """Networks that one optimiser trains."""

    networks: Mapping[str, nn.Module]
    """By name; those of their parameters that require a gradient are trained."""
    lr_factor: float = 1.0
    """Learning rate in multiples of that of the loop."""
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    """What batch norms do, by the name of the network; those not named: `updated`."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are trained, in a fixed order."""
        return [p for net in self.networks.values() for p in net.parameters() if p.requires_grad]


class Engine:
    """What a stage's step is given: it knows optimisers and processes, and no method.

    Gradients are averaged over processes by one sum of all of them, not by wrapping networks for it: stages call their
    networks through several methods, some of them in no step.

    Args: trained: what each optimiser trains, by its name; on the device of `processes`.
    """

    def __init__(self, trained: Mapping[str, Trained], config: LoopConfig, processes: Processes) -> None:
        self.config, self.processes, self.trained = config, processes, trained
        self.step = 0
        """Steps done before the present one; the loop counts."""
        kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.SGD
        on_gpu = processes.device.type == "cuda"  # where a launch for all parameters takes the host less time
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            name: kind(part.parameters, lr=config.lr, fused=on_gpu) for name, part in trained.items()
        }

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.processes.device

    def autocast(self) -> AbstractContextManager[None]:
        """Matrices are multiplied in bfloat16 where the configuration says so."""
        context: AbstractContextManager[None] = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.bfloat16
        )
        return context

    def update(self, name: str, losses: Iterable[Loss]) -> dict[str, float]:
        """Take one step of optimiser `name`, against the mean gradient of the losses of all processes.

        Every loss goes backward, and is freed, before the next one is computed. The gradients stay on the parameters
        until the next update of any optimiser.

        Args: losses: of all batches of the step, lazily; at least one.
        Returns: the mean figures of the losses, "loss" and "grad_norm" (before clipping; 0, and no step, where no
            process had a crop to learn from).
        Raises: FloatingPointError: the loss or its gradient is not finite, in all processes alike; no weight has
            changed.
        """
        (group,) = self.optimisers[name].param_groups
        parameters = group["params"]
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        found = [_backward(loss, parameters) for loss in self._computed(losses)]
        total_norm = self._average_gradient(parameters, len(found) * self.processes.count)
        *rows, last = _read([*found, {"grad_norm": total_norm}])
        figures, norm = self._mean(rows), last["grad_norm"]
        _check_finite(f"loss of the {name}", figures["loss"])
        if figures.pop("learnt") == 0:
            return {**figures, "grad_norm": 0.0}
        _check_finite(f"norm of the gradient of the {name}", norm)
        _scale(parameters, min(1.0, self.config.clip / (norm + 1e-6)))
        group["lr"] = learning_rate(self.step, self.config) * self.trained[name].lr_factor
        self.optimisers[name].step()
        return {**figures, "grad_norm": norm}

    def _computed(self, losses: Iterable[Loss]) -> Iterator[Loss]:
        """The losses, computed under autocast; whatever is done with them is outside of it."""
        iterator = iter(losses)
        while True:
            with self.autocast():
                loss = next(iterator, None)
            if loss is None:
                return
            yield loss

    def _mean(self, rows: list[dict[str, float]]) -> dict[str, float]:
        """Over batches, then over processes, all of which have as many."""
        totals = self.processes.sum_figures(mean_figures(rows))
        return {name: total / self.processes.count for name, total in totals.items()}

    def _average_gradient(self, parameters: list[nn.Parameter], parts: int) -> Float[Tensor, ""]:
        """Replace the gradients, sums over this process's batches, by the mean over all `parts`; return its norm."""
        own = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self.processes.sum(torch.cat([gradient.flatten() for gradient in own])) / parts
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        norm: Tensor = torch.linalg.vector_norm(flat)
        return norm


def _backward(loss: Loss, parameters: list[nn.Parameter]) -> dict[str, float | Tensor]:
    """Add the gradient to those of the parameters, and give the figures with the loss among them."""
    if loss.total is None:
        return {**loss.figures, "loss": 0.0, "learnt": 0.0}
    loss.total.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    return {**loss.figures, "loss": loss.total.detach(), "learnt": 1.0}


def _read(rows: list[dict[str, float | Tensor]]) -> list[dict[str, float]]:
    """The figures as numbers, all at once: to wait for a GPU anywhere before would leave it idle afterwards."""
    tensors = [value for row in rows for value in row.values() if isinstance(value, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [
        {name: next(numbers) if isinstance(value, Tensor) else value for name, value in row.items()}
        for row in rows
    ]


def _scale(parameters: list[nn.Parameter], factor: float) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, factor)


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {value}; the last checkpoint is sound: resume with a lower lr"
        )
