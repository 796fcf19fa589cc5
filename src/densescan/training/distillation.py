"""What all distillation shares: student, frozen teacher, assistants, and the distance of their predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.data.dataset import CropConfig
from densescan.diffusion.process import add_noise
from densescan.diffusion.samplers.interface import EpsFn
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.losses.denoising import denoising_loss
from densescan.losses.distillation import Scored
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import Condition
from densescan.nets.networks import Networks
from densescan.training.batch import Batch, Loss, Validation
from densescan.training.crop_distance import chamfer_in_crop, figures, mean_chamfer
from densescan.training.engine import Trained
from densescan.training.student import (
    LastStepSampler,
    Sample,
    crop_points,
    open_model,
    predictor,
    trainable_copy,
)
from densescan.weights.folder import DEFAULT_TEACHER

VALIDATION_STEPS = (1, 8)
"""Sampling steps at which a held-out crop is completed: where the paper is weakest, and where it is published."""
VALIDATION_REPEAT = 5
"""K of these completions, as in the teacher's validation."""
CROPS = CropConfig(truth_points=20_000, truth_margin=2.0)
"""Crops whose truth goes on beyond the radius, so that scenes are judged alike at the edge and in the middle."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class DistillationConfig:
    """Choices that all distillation shares.

    Raises: InputError: a value outside its range.
    """

    teacher: str = DEFAULT_TEACHER
    """Model that is distilled: a bundled name or a folder."""
    student: str | None = None
    """Model that the student starts from, such as one that was distilled before; None: the teacher."""
    crops: CropConfig = CROPS
    repeat: int = 10
    """K: how many noisy copies of each point of the scan make the start."""
    student_steps: tuple[int, ...] = (1, 2, 4, 8)
    """The student learns through the last step of so many sampling steps, drawn anew for each crop. The release has 1
    alone, and then samples in 8, most of which it never trained."""
    guidance_scale: float = 1.0
    """Classifier-free guidance of the teacher. What it adds goes over to the student, which then needs one pass a step.
    1: none, as the release trains."""
    train_encoder: bool = False
    """The student learns an encoder of its own. False: as released, all share the teacher's, which stays as it is."""
    min_t: int = 20
    """Student and assistants are compared at noise levels from this one ..."""
    max_t: int = 980
    """... to this one, excluded. The release takes all, 0 to 1000; at the ends nothing is hidden, or everything is."""
    assistant_steps: int = 1
    """Steps of the assistants for each of the student."""
    assistant_lr_factor: float = 2.0
    """Learning rate of the assistants in multiples of the loop's: they follow the student."""
    head_start: int = 100
    """Steps of the run in which the assistants learn alone. They begin as the teacher, and what they differ by at first
    is the noise of their own training."""
    chamfer_weight: float = 0.0
    """Weight of the Chamfer distance [m] of the student's samples to the truth within the crop, beside the objective.
    Neither paper nor release has it (ScoreLiDAR's scene-wise term squares the distances)."""

    def __post_init__(self) -> None:
        rules = {
            "repeat and assistant_steps of at least 1": min(self.repeat, self.assistant_steps) >= 1,
            "student_steps of at least 1": min(self.student_steps, default=0) >= 1,
            "0 <= min_t < max_t": 0 <= self.min_t < self.max_t,
            "assistant_lr_factor above 0": self.assistant_lr_factor > 0,
            "head_start of at least 0": self.head_start >= 0,
            "chamfer_weight of at least 0": self.chamfer_weight >= 0,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise InputError(
                f"expected distillation with {'; '.join(broken)}, got {self}: change these values"
            )


@dataclass(frozen=True)
class Generated:
    """What the student made of a batch, without gradient."""

    batch: Batch
    cond: Condition
    """Its scans, as teacher and assistants know them."""
    parts: dict[tuple[int, ...], tuple[Sample, ...]]
    """Rows of the crops of one number of steps, and the samples of these crops."""

    def x_0(self, i: int) -> Float[Tensor, "B M 3"]:
        """Sample i of all crops [m]."""
        return self.in_order([samples[i].x_0 for samples in self.parts.values()])

    def in_order(self, parts: Sequence[Float[Tensor, "_ M 3"]]) -> Float[Tensor, "B M 3"]:
        """What was made of each part, in the order of the batch's crops."""
        if len(parts) == 1:
            return parts[0]
        rows = torch.tensor([row for part in self.parts for row in part])
        return torch.cat(list(parts))[rows.argsort().to(parts[0].device)]


class Level(NamedTuple):
    """By what the crops of a batch are noised."""

    t: Int64[Tensor, " B"]
    eps: Float[Tensor, "B M 3"]


def draw_level(batch: Batch, purpose: str, like: Float[Tensor, "B M 3"], min_t: int, max_t: int) -> Level:
    """A noise level in [min_t, max_t) and noise, shaped as `like`, for each crop."""
    t = batch.draws.integers(f"{purpose}/t", max_t, min_t)
    return Level(t.to(like.device), batch.draws.normal(f"{purpose}/eps", like))


class Distillation(ABC):
    """Student, frozen teacher and assistants; a stage derives from it and adds the objective.

    Which networks learn: the student's denoiser, and the assistants', which begin as copies of the teacher. The encoder
    is the teacher's for all of them and stays as it is, as in the release; `train_encoder` gives the student a copy
    that learns, while teacher and assistants keep theirs. The student is asked without guidance, always.

    Batch norm, where there is any: frozen statistics in all networks. Teacher, assistants and student are compared at
    the same points; were one to normalise by the batch and another by its running statistics, their difference, which
    is all that the student learns from, would be that of the norms, not of the distributions. It also begins at zero
    then, as the assistants are the teacher. All start from a trained model, so that nothing needs to be estimated, and
    what is trained is what will sample. The release updates them (its student and assistants are in training mode),
    which is the only thing that changes in its student. Layer norms see no batch.

    Args: assistants: their names. schedule: None: the released one.
    Raises: InputError: no such model, one without encoder and denoiser, or a student of another form; max_t or steps
        beyond the schedule.
    """

    def __init__(
        self, config: DistillationConfig, assistants: Sequence[str], schedule: Schedule | None = None
    ) -> None:
        self.schedule = schedule or Schedule()
        if max(config.max_t, *config.student_steps) > self.schedule.T:
            raise InputError(
                f"expected max_t and student_steps of at most {self.schedule.T}, got {config.max_t} and "
                f"{config.student_steps}: change these values"
            )
        self.config, self.crops = config, config.crops
        teacher = open_model(config.teacher)
        start = open_model(config.student, teacher.denoiser.config) if config.student else teacher
        self.teacher, self.encoder = teacher.denoiser, teacher.encoder
        self.completion = replace(teacher.completion, guidance_scale=1.0, repeat=config.repeat)
        """How the student samples: as the teacher, without guidance."""
        self.sampler = LastStepSampler(self.completion, self.schedule)
        self.student = trainable_copy(start.denoiser)
        self.student_encoder = trainable_copy(start.encoder) if config.train_encoder else start.encoder
        self.assistants = {name: trainable_copy(teacher.denoiser) for name in assistants}
        self.results: dict[str, nn.Module] = {"encoder": self.student_encoder, "denoiser": self.student}
        self.frozen: dict[str, nn.Module] = {"teacher": self.teacher, "encoder": self.encoder}
        if not config.train_encoder and config.student:
            self.frozen["student_encoder"] = self.student_encoder
        learns = self.results if config.train_encoder else {"denoiser": self.student}
        self.trained = {"student": Trained(learns, statistics=dict.fromkeys(learns, "frozen"))}
        for name, net in self.assistants.items():
            part = Trained({"denoiser": net}, config.assistant_lr_factor, {"denoiser": "frozen"})
            self.trained[name] = part

    @torch.no_grad()
    def generate(self, batch: Batch) -> Generated:
        """Sample the student, crops of one number of steps together.

        Raises: FloatingPointError: a sample is not finite.
        """
        config = self.config
        drawn = batch.draws.integers("steps", len(config.student_steps)).tolist()
        made = {}
        for i in sorted(set(drawn)):
            rows = tuple(row for row, drawn_i in enumerate(drawn) if drawn_i == i)
            part = batch.chosen(rows)
            x_init = crop_points(part, config.crops.scan_points, config.repeat)
            made[rows] = self.samples(self.student_eps(part), x_init, part, config.student_steps[i])
        return Generated(batch, self.encoder(batch.crop.scan), made)

    @abstractmethod
    def samples(
        self, eps_fn: EpsFn, x_init: Float[Tensor, "B M 3"], batch: Batch, steps: int
    ) -> tuple[Sample, ...]:
        """The samples that the objective needs of each crop."""

    def last_steps(self, generated: Generated) -> list[Float[Tensor, "B M 3"]]:
        """The samples once more, with gradient [m]."""
        made = []
        for rows, samples in generated.parts.items():
            eps_fn = self.student_eps(generated.batch.chosen(rows))
            made.append([self.sampler.last_step(eps_fn, sample) for sample in samples])
        return [generated.in_order(parts) for parts in zip(*made, strict=True)]

    def student_eps(self, batch: Batch) -> EpsFn:
        """What the student predicts."""
        return predictor(self.student_encoder, self.student, batch.crop.scan)

    def draw_level(self, batch: Batch, purpose: str, like: Tensor) -> Level:
        """By what samples of the shape of `like` are noised."""
        return draw_level(batch, purpose, like, self.config.min_t, self.config.max_t)

    def scored(
        self,
        x_0: Float[Tensor, "B M 3"],
        assistant: Denoiser,
        cond: Condition,
        level: Level,
        kept: Bool[Tensor, " B"] | None = None,
    ) -> Scored:
        """The samples with what teacher and assistant predict for them once they are noised. kept: None: all."""
        with torch.no_grad():
            x_t = add_noise(x_0, *level, self.schedule)
            eps_teacher = self.teacher_eps(x_t, level.t, cond)
            eps_assistant = assistant(x_t, level.t, cond).to(x_t)
        rows = slice(None) if kept is None else kept
        return Scored(x_0[rows], eps_teacher[rows], eps_assistant[rows])

    def teacher_eps(self, x_t: Float[Tensor, "B M 3"], t: Tensor, cond: Condition) -> Tensor:
        """What the teacher predicts, with the guidance that the student takes over."""
        if self.config.guidance_scale == 1.0:
            return self.teacher(x_t, t, cond).to(x_t)
        uncond = self.encoder.unconditional(len(x_t))
        return self.teacher.guided(x_t, t, cond, uncond, self.config.guidance_scale).to(x_t)

    def denoising_errors(
        self, assistant: Denoiser, x_0: Float[Tensor, "B M 3"], generated: Generated, purpose: str
    ) -> Float[Tensor, " B"]:
        """The assistant's mean squared error on samples of each crop (Eq. 20)."""
        level = self.draw_level(generated.batch, purpose, x_0)
        eps_hat = assistant(add_noise(x_0, *level, self.schedule), level.t, generated.cond)
        crops = zip(
            eps_hat[:, None], level.eps[:, None], assistant.error_scale(level.t)[:, None], strict=True
        )
        return torch.stack([denoising_loss(e_hat, e, 0.0, scale).mse for e_hat, e, scale in crops])

    def chamfer_term(
        self, batch: Batch, *samples: Float[Tensor, "B M 3"]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """What the Chamfer distance adds to the loss, and its figures; nothing where it has no weight."""
        if self.config.chamfer_weight == 0.0:
            return samples[0].new_zeros(()), {}
        distances, left_out = zip(*(mean_chamfer(x_0, batch) for x_0 in samples), strict=True)
        mean = torch.stack(distances).mean()
        figures = {"chamfer": mean.item(), "chamfer/left_out": sum(left_out) / len(left_out)}
        return self.config.chamfer_weight * mean, figures

    def student_turn(self, loss: Callable[[Made], Loss], made: Made, step: int) -> Loss:
        """The student's loss; during the assistants' head start only what it would log."""
        if step >= self.config.head_start or not self.assistants:
            return loss(made)
        with torch.no_grad():
            return Loss(None, loss(made).figures)

    def validate(self, batch: Batch) -> Validation:
        """How well one and eight steps of the student complete the crop [m]; see `Stage`."""
        return completions(
            Networks(self.student_encoder, self.student), self.completion, self.schedule, batch
        )


def completions(
    networks: Networks, completion: CompletionConfig, schedule: Schedule, batch: Batch
) -> Validation:
    """Complete a crop in one and in eight steps, and tell the Chamfer distance within the crop [m].

    Args: batch: of one crop.
    """
    scan = batch.crop.scan[0]
    found: dict[str, float] = {}
    clouds = {"scan": scan}
    for steps in VALIDATION_STEPS:
        config = replace(completion, repeat=VALIDATION_REPEAT, steps=steps)
        completer = Completer(networks, config, scan.device, schedule)
        scene = completer.sample(scan[None], config, batch.draws.noise(f"validation/{steps}"))[0]
        found |= figures(chamfer_in_crop(scene, batch), f"steps_{steps}/")
        clouds[f"{steps} step{'s' if steps > 1 else ''}"] = scene
    return Validation(found, {**clouds, "truth": batch.crop.truth[0]})
