"""What every sampler takes: a noise predictor, a start, a source of noise and a witness of its steps.

All samplers keep the offset x_t - x_init [m] as their state, so that no arithmetic depends on how far a point
lies from the sensor; the predictor is always given the absolute points x_init + offset.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError

EpsFn = Callable[[Tensor, Tensor], Tensor]
"""eps_fn(x_t, t) -> eps_hat: predicted noise of the absolute points x_t [m]; t is a scalar int64 tensor."""

NoiseFn = Callable[[Tensor], Tensor]
"""noise(like) -> standard normal noise of the shape, dtype and device of `like`; called once a step."""

OnStep = Callable[[int, Tensor], None]
"""on_step(i, x_t): called after step i = 0, 1, ... with the absolute points that the step arrived at."""


@runtime_checkable
class Sampler(Protocol):
    """The signature that all samplers share; each adds keywords of its own.

    Args: eps_fn: noise predictor. x_init: points that the noise was added to [m]. x_T: where to start [m],
    from `noise_scene`. schedule, steps: noise levels and how many of them to visit. noise: source of fresh
    noise, None for none. on_step: witness of every step.
    Returns: x_0 [m], shaped as x_T. Gradients flow through every call of eps_fn that records them.
    """

    def __call__(
        self,
        eps_fn: EpsFn,
        x_init: Tensor,
        x_T: Tensor,
        schedule: Schedule,
        steps: int,
        *,
        noise: NoiseFn | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor: ...


def gaussian(generator: torch.Generator) -> NoiseFn:
    """Standard normal noise from an explicit generator, drawn on the generator's device, then moved.

    A CPU generator therefore gives the same noise, and the same scene, on every device.
    """

    def noise(like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
        return drawn.to(like.device)

    return noise


def gaussian_ahead(generator: torch.Generator, shape: Sequence[int]) -> NoiseFn:
    """As `gaussian` for one shape of float32: drawn by a thread, from now on, one call ahead of its use.

    While a GPU computes a step, the processor draws the noise of the next, in memory from which it is copied without
    waiting, beside what is computed. Draws one tensor more than is asked for.
    """
    drawing = ThreadPoolExecutor(1, "densescan")
    pinned = torch.cuda.is_available()
    copying: torch.cuda.Stream | None = None

    def draw() -> Tensor:
        return torch.randn(tuple(shape), generator=generator, pin_memory=pinned)

    drawn = drawing.submit(draw)

    def noise(like: Tensor) -> Tensor:
        nonlocal drawn, copying
        ready, drawn = drawn, drawing.submit(draw)
        if not like.is_cuda:
            return ready.result().to(like.device)
        copying = copying or torch.cuda.Stream(like.device)
        with torch.cuda.stream(copying):
            copied = ready.result().to(like.device, non_blocking=True)
        using = torch.cuda.current_stream(like.device)
        using.wait_stream(copying)
        copied.record_stream(using)
        return copied

    return noise


def start_offset(x_init: Tensor, x_T: Tensor) -> Tensor:
    """x_T - x_init.

    Raises: InputError: shapes differ (broadcasting would start every point at the same place).
    """
    if x_init.shape != x_T.shape:
        raise InputError(
            f"x_init and x_T must have one shape, got {tuple(x_init.shape)} and {tuple(x_T.shape)}; "
            "repeat the scan's points before adding noise"
        )
    return x_T - x_init


def predict_eps(eps_fn: EpsFn, x_t: Tensor, t: int) -> Tensor:
    """eps_fn(x_t, t), t as a scalar tensor beside x_t.

    Raises: InputError: the prediction is not shaped as x_t (broadcasting would hide it).
    """
    eps_hat = eps_fn(x_t, torch.full((), t, dtype=torch.int64, device=x_t.device))
    if eps_hat.shape != x_t.shape:
        raise InputError(
            f"eps_fn must return noise shaped as its points {tuple(x_t.shape)}, got {tuple(eps_hat.shape)}; "
            "return one offset per point"
        )
    return eps_hat


def check_share(name: str, share: float, noise: NoiseFn | None) -> None:
    """Check a share of fresh noise, which lies in [0, 1] and, unless 0, needs a source.

    Raises: InputError: either does not hold.
    """
    if not 0 <= share <= 1:
        raise InputError(f"{name} must lie in [0, 1], got {share}; 0 is deterministic")
    if share > 0 and noise is None:
        raise InputError(f"{name} = {share} draws noise, got noise=None; pass noise=gaussian(generator)")
