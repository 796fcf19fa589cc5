"""Diffusion-DPO (Eq. 10): a teacher fine-tuned to prefer the better of its own completions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densescan.data.dataset import CropConfig
from densescan.diffusion.process import add_noise
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.losses.dpo import BETA, Predicted, diffusion_dpo_loss
from densescan.nets.networks import Networks
from densescan.training.batch import Batch, Loss, Validation
from densescan.training.distillation import CROPS, Level, completions, draw_level
from densescan.training.engine import Engine, Trained
from densescan.training.pairs import PairConfig, Ranking, paired_samples, rank_pairs
from densescan.training.student import LastStepSampler, crop_points, open_model, predictor, trainable_copy
from densescan.weights.folder import DEFAULT_TEACHER


@dataclass(frozen=True)
class DiffusionDpoConfig:
    """What is fine-tuned, and on which pairs.

    Raises: InputError: a value outside its range.
    """

    teacher: str = DEFAULT_TEACHER
    """Model that is fine-tuned, and the reference that it is held to: a bundled name or a folder."""
    crops: CropConfig = CROPS
    repeat: int = 10
    """K: how many noisy copies of each point of the scan make the start of a completion."""
    steps: int = 8
    """Sampling steps of the completions; a teacher is used with up to 50, at six times the cost."""
    guidance_scale: float | None = None
    """Classifier-free guidance of the completions; None: as the model has it. The loss sees predictions without."""
    pairs: PairConfig = field(default_factory=PairConfig)
    """How winners and losers are made and told apart."""
    beta: float = BETA
    """Strength of the bond to the reference: beta T multiplies the margin of mean squared errors."""
    train_encoder: bool = False
    """The encoder learns as well. False: it stays as it is, and what is distilled later shares it."""
    min_t: int = 0
    """The pairs are noised to levels from this one ..."""
    max_t: int = 1000
    """... to this one, excluded."""

    def __post_init__(self) -> None:
        rules = {
            "repeat and steps of at least 1": min(self.repeat, self.steps) >= 1,
            "beta above 0": self.beta > 0,
            "0 <= min_t < max_t": 0 <= self.min_t < self.max_t,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise InputError(
                f"expected fine-tuning with {'; '.join(broken)}, got {self}: change these values"
            )


class Completed(NamedTuple):
    """Two completions of each crop by the reference, and which is better."""

    batch: Batch
    first: Float[Tensor, "B M 3"]
    second: Float[Tensor, "B M 3"]
    ranking: Ranking


class DiffusionDpoStage:
    """Fine-tune encoder and denoiser of a teacher by its preferences: Table 5's stronger teacher.

    The reference, frozen, completes every crop twice; the policy's error of the noise must then fall, against the
    reference's, by more on winners than on losers. Both of a pair get the same noise level and noise, as in the release
    of Diffusion-DPO: the margin is then that of the scenes. Crops without a winner teach nothing, and are counted.

    Batch norm, where there is any: frozen statistics in policy and reference. The policy begins as the reference, with
    a loss of log 2; by the batch's statistics it would differ from it before it has learnt anything, and winners and
    losers would be normalised apart. Layer norms see no batch.

    Source: Eq. 10; Wallace et al., 2024.   Deviation: the pairs are drawn afresh, not from a data set.
    Raises: InputError: no such model, one without encoder and denoiser; max_t or steps beyond the schedule.
    """

    def __init__(self, config: DiffusionDpoConfig, schedule: Schedule | None = None) -> None:
        self.config, self.crops, self.schedule = config, config.crops, schedule or Schedule()
        if max(config.max_t, config.steps) > self.schedule.T:
            raise InputError(
                f"expected max_t and steps of at most {self.schedule.T}, got {config.max_t} and {config.steps}: "
                "change these values"
            )
        reference = open_model(config.teacher)
        self.reference, self.reference_encoder = reference.denoiser, reference.encoder
        self.completion = replace(reference.completion, repeat=config.repeat)
        if config.guidance_scale is not None:
            self.completion = replace(self.completion, guidance_scale=config.guidance_scale)
        self.sampler = LastStepSampler(self.completion, self.schedule)
        self.policy = trainable_copy(reference.denoiser)
        self.encoder = trainable_copy(reference.encoder) if config.train_encoder else reference.encoder
        self.results: dict[str, nn.Module] = {"encoder": self.encoder, "denoiser": self.policy}
        learns = self.results if config.train_encoder else {"denoiser": self.policy}
        self.trained = {"policy": Trained(learns, statistics=dict.fromkeys(learns, "frozen"))}
        self.frozen: dict[str, nn.Module] = {
            "reference": self.reference,
            "reference_encoder": self.reference_encoder,
        }

    def step(self, batches: Sequence[Batch], engine: Engine) -> dict[str, float]:
        """The reference completes the crops, then the policy learns; see `Stage.step`."""
        with engine.autocast():
            pairs = [self.pairs(batch) for batch in batches]
        return engine.update("policy", (self.loss(pair) for pair in pairs))

    @torch.no_grad()
    def pairs(self, batch: Batch) -> Completed:
        """Two completions of each crop, ranked."""
        config, completion = self.config, self.completion
        scale = float(completion.guidance_scale)
        eps_fn = predictor(self.reference_encoder, self.reference, batch.crop.scan, scale)
        x_init = crop_points(batch, config.crops.scan_points, config.repeat)
        first, second = paired_samples(self.sampler, eps_fn, x_init, batch, config.steps, config.pairs)
        return Completed(batch, first.x_0, second.x_0, self.rank(batch, first.x_0, second.x_0))

    def rank(self, batch: Batch, first: Float[Tensor, "B M 3"], second: Float[Tensor, "B M 3"]) -> Ranking:
        """Which completion of each crop is the better one."""
        return rank_pairs(batch, first, second, self.config.pairs.metric)

    def loss(self, pairs: Completed) -> Loss:
        """Eq. 10, on the crops that are kept."""
        batch, first, second, ranking = pairs
        names = ("gain_margin", "gain_w", "gain_l", "accuracy")
        if not ranking.kept.any():
            return Loss(None, {**ranking.figures, **dict.fromkeys(names, 0.0)})
        level = draw_level(batch, "policy", first, self.config.min_t, self.config.max_t)
        winner, loser = (
            self._predicted(x_0, batch, level, ranking.kept)
            for x_0 in (ranking.winners(first, second), ranking.losers(first, second))
        )
        total, *figures = diffusion_dpo_loss(winner, loser, self.config.beta, self.schedule.T)
        shares = [figure.item() * ranking.share for figure in figures]
        return Loss(total * ranking.share, {**ranking.figures, **dict(zip(names, shares, strict=True))})

    def _predicted(self, x_0: Tensor, batch: Batch, level: Level, kept: Tensor) -> Predicted:
        """What policy and reference see in noised scenes, of the crops that are kept."""
        x_t, scan = add_noise(x_0, *level, self.schedule), batch.crop.scan
        with torch.no_grad():
            eps_ref = self.reference(x_t, level.t, self.reference_encoder(scan)).to(x_t)
        eps_hat = self.policy(x_t, level.t, self.encoder(scan)).to(x_t)
        return Predicted(level.eps[kept], eps_hat[kept], eps_ref[kept])

    def validate(self, batch: Batch) -> Validation:
        """How well one and eight steps of the policy complete the crop [m]; see `Stage`."""
        return completions(Networks(self.encoder, self.policy), self.completion, self.schedule, batch)
