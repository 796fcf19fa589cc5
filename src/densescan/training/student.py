"""The student's sample: a few steps of the model's own sampler, of which the last one carries gradient."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densescan.completion import CompletionConfig, sampler_of
from densescan.diffusion.samplers.interface import EpsFn, NoiseFn
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.training.batch import Batch
from densescan.weights.folder import read_model

Net = TypeVar("Net", bound=nn.Module)


class DiffusionModel(NamedTuple):
    """What a stage starts from: networks in evaluation mode and without gradient, and how they sample."""

    encoder: ConditionEncoder
    denoiser: Denoiser
    completion: CompletionConfig


def open_model(name_or_path: str, net: NetConfig | None = None) -> DiffusionModel:
    """The encoder and the denoiser of a bundled model or of a model folder.

    Args: net: the form that they must have; None: any.
    Raises: InputError: no such model, a damaged one, one without encoder and denoiser, or one of another form.
    """
    networks, config = read_model(name_or_path)
    if networks.encoder is None or networks.denoiser is None:
        found = ", ".join(networks.present()) or "no network"
        raise InputError(
            f"{name_or_path}: expected a model with encoder and denoiser, it holds {found}: train a teacher first"
        )
    if net is not None and networks.denoiser.config != net:
        raise InputError(
            f"{name_or_path}: expected networks of the teacher's form, {net}, got {networks.denoiser.config}: "
            "name a model that was trained from this teacher"
        )
    for network in (networks.encoder, networks.denoiser):
        network.requires_grad_(False).eval()
    return DiffusionModel(networks.encoder, networks.denoiser, config.completion)


def trainable_copy(net: Net) -> Net:
    """A copy that learns; in the mode of the original until the loop decides."""
    return copy.deepcopy(net).requires_grad_(True)


def predictor(
    encoder: ConditionEncoder, denoiser: Denoiser, scan: Float[Tensor, "B N 3"], scale: float = 1.0
) -> EpsFn:
    """What a sampler asks: the predicted noise of scenes of these scans, with guidance of that scale."""
    cond = encoder(scan)
    if scale == 1.0:
        return lambda x_t, t: denoiser(x_t, t.expand(len(x_t)), cond).to(x_t)
    uncond = encoder.unconditional(len(scan))
    return lambda x_t, t: denoiser.guided(x_t, t.expand(len(x_t)), cond, uncond, scale).to(x_t)


def crop_points(batch: Batch, n: int, repeat: int) -> Float[Tensor, "B M 3"]:
    """x_init of the crops [m], sensor frame: the n points of each scan that lie within the crop's radius, K times.

    What lies beyond the radius is condition alone, as in the teacher's training, whose truth ends there.

    Args: n: `CropConfig.scan_points`, whose farthest one is the radius. repeat: K; M = n K.
    """
    return batch.crop.scan[:, :n].repeat(1, repeat, 1)


@dataclass(frozen=True)
class Sample:
    """A sample without gradient, and what is needed to take its last step again."""

    x_0: Float[Tensor, "B M 3"]
    """The sample [m]."""
    x_init: Float[Tensor, "B M 3"]
    x_T: Float[Tensor, "B M 3"]
    steps: int
    eps_hats: Sequence[Float[Tensor, "B M 3"]]
    """Predictions of all steps but the last."""
    noises: Sequence[Float[Tensor, "B M 3"]]
    """Fresh noise of all steps, of samplers that draw it."""


class LastStepSampler:
    """The sampler of a model, for training: once without gradient, then its last step again with it.

    Between the two the assistants learn from the sample. Taking the last step twice costs one prediction of the
    student, where keeping its graph would hold the memory of all batches of a step while other networks train. Steps
    before the last are not recomputed: their predictions are replayed, so that both give the same sample.

    Source: the released distillation takes gradients through the last step. With `consistent` (Eq. 1) a one-step sample
    is x_T - 0.985 eps_hat; with the released solver it is x_init + (offset - sigma eps_hat) / alpha, which multiplies
    an error of eps_hat, and its gradient, by 5.7.
    """

    def __init__(self, completion: CompletionConfig, schedule: Schedule) -> None:
        self.completion, self.schedule = completion, schedule

    @torch.no_grad()
    def sample(
        self,
        eps_fn: EpsFn,
        x_init: Float[Tensor, "B M 3"],
        x_T: Float[Tensor, "B M 3"],
        steps: int,
        noise: NoiseFn,
    ) -> Sample:
        """Sample without gradient.

        Raises: FloatingPointError: the sample is not finite.
        """
        eps_hats: list[Tensor] = []
        noises: list[Tensor] = []

        def predicted(x_t: Tensor, t: Tensor) -> Tensor:
            eps_hats.append(eps_fn(x_t, t))
            return eps_hats[-1]

        def drawn(like: Tensor) -> Tensor:
            noises.append(noise(like))
            return noises[-1]

        x_0 = self._walk(predicted, x_init, x_T, steps, drawn)
        if not torch.isfinite(x_0).all():
            raise FloatingPointError(
                "a sample is not finite; the last checkpoint is sound: resume with a lower lr"
            )
        return Sample(x_0, x_init, x_T, steps, eps_hats[:-1], noises)

    def last_step(self, eps_fn: EpsFn, sample: Sample) -> Float[Tensor, "B M 3"]:
        """x_0 of the sample once more, with the gradient of its last prediction."""
        eps_hats = iter(sample.eps_hats)

        def replayed(x_t: Tensor, t: Tensor) -> Tensor:
            known = next(eps_hats, None)
            return eps_fn(x_t, t) if known is None else known

        return self._walk(replayed, sample.x_init, sample.x_T, sample.steps, replay(sample.noises))

    def _walk(self, eps_fn: EpsFn, x_init: Tensor, x_T: Tensor, steps: int, noise: NoiseFn) -> Tensor:
        config = self.completion
        fresh = None if config.sampler == "dpm-solver++" else noise
        return sampler_of(config)(eps_fn, x_init, x_T, self.schedule, steps, noise=fresh)


def replay(noises: Sequence[Tensor]) -> NoiseFn:
    """A source of noise that gives once more what was drawn before."""
    drawn = iter(noises)
    return lambda like: next(drawn)
