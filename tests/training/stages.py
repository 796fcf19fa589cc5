"""Small forms of the stages that start from a teacher, and a process that trains one.

stages.py STAGE MODEL DATA RUN LOOP [HELD_OUT]
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from densescan.completion import CompletionConfig
from densescan.data.dataset import Crop, CropConfig
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.training.batch import Batch, Loss
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig, DiffusionDpoStage
from densescan.training.distillation import Generated
from densescan.training.distillation_dpo import DistillationDpoConfig, DistillationDpoStage
from densescan.training.engine import Engine
from densescan.training.loop import Listener, fit
from densescan.training.processes import Processes
from densescan.training.score_distillation import ScoreDistillationConfig, ScoreDistillationStage
from densescan.training.stage import Stage
from densescan.weights.folder import ModelConfig, build, save_model

CROPS = CropConfig(
    scan_points=150, truth_points=300, min_reduced=600, max_reduced=800, max_range=20.0, truth_margin=0.5
)
FORMS = {
    "released": (NetConfig(width=0.125, voxel_size=0.2), CompletionConfig(guidance_scale=6.0)),
    "own": (
        NetConfig(width=0.125, norm="layer", voxel_size=0.2, point_features="local", see_scan=True),
        CompletionConfig(guidance_scale=1.0, sampler="consistent"),
    ),
}


class DoubleStage(DistillationDpoStage):
    """Distillation-DPO in double precision, where rounding moves no point into the next voxel."""

    def __init__(self, config: DistillationDpoConfig) -> None:
        super().__init__(config)
        for net in (self.teacher, self.encoder, self.student, *self.assistants.values()):
            net.double()

    def generate(self, batch: Batch) -> Generated:
        return super().generate(batch._replace(crop=Crop(*(part.double() for part in batch.crop))))


STAGES = {
    "dpo in double precision": (DoubleStage, DistillationDpoConfig),
    "score": (ScoreDistillationStage, ScoreDistillationConfig),
    "dpo": (DistillationDpoStage, DistillationDpoConfig),
    "tuning": (DiffusionDpoStage, DiffusionDpoConfig),
}


def save_teacher(folder: Path, form: str = "own", seed: int = 0) -> str:
    """A model of random weights."""
    net, completion = FORMS[form]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = build(ModelConfig(net=net))
        if net.norm == "batch":
            calibrate(networks)
    save_model(folder, networks, completion, "# Random\n")
    return str(folder)


def calibrate(networks: Networks) -> None:
    """Statistics of batch norms that suit a scene of noise, as those of a trained network suit scenes."""
    assert networks.encoder is not None
    assert networks.denoiser is not None
    norms = [
        module
        for network in networks.present().values()
        for module in network.train().modules()
        if isinstance(module, nn.BatchNorm1d)
    ]
    for norm in norms:
        norm.momentum = 1.0
    points = torch.rand(1, 400, 3) * torch.tensor([12.0, 12.0, 2.0])
    with torch.no_grad():
        networks.denoiser(points + torch.randn(1, 400, 3), torch.tensor([500]), networks.encoder(points))
    for norm in norms:
        norm.momentum = 0.1


def make_stage(name: str, teacher: str, **options: object) -> Stage:
    """A stage that samples little."""
    make, config = STAGES[name]
    few = {"steps": 2} if name == "tuning" else {"student_steps": (1, 2), "head_start": 0}
    return make(config(**{"teacher": teacher, "crops": CROPS, "repeat": 2, **few, **options}))  # type: ignore


class Watched(Engine):
    """An engine that looks at the gradients that each update leaves behind."""

    def __init__(self, stage: Stage, **loop: object) -> None:
        defaults = {"schedule": "constant", "warmup_steps": 0, "bfloat16": False, "cpu": True, "clip": 1e9}
        config = LoopConfig(**{**defaults, **loop})  # type: ignore[arg-type]
        super().__init__(stage.trained, config, Processes(cpu=True))
        self.stage, self.updates = stage, list[str]()

    def update(self, name: str, losses: Iterable[Loss]) -> dict[str, float]:
        """Every parameter of the optimiser has a finite gradient that is not zero, all others have none."""
        found = super().update(name, losses)
        self.updates.append(name)
        ours = {id(parameter) for parameter in self.trained[name].parameters}
        nets = {f"{part}/{key}": net for part, t in self.trained.items() for key, net in t.networks.items()}
        for owner, net in {**nets, **self.stage.frozen}.items():
            for key, parameter in net.named_parameters():
                if id(parameter) not in ours:
                    assert parameter.grad is None, f"{name} reached {owner} {key}"
                    continue
                assert parameter.grad is not None, f"{owner} {key}"
                assert bool(torch.isfinite(parameter.grad).all()), f"{owner} {key}"
                assert parameter.grad.abs().max() > 0, f"{owner} {key}"
        return found


def weights(*nets: nn.Module) -> list[torch.Tensor]:
    """Copies of all parameters and statistics."""
    return [value.clone() for net in nets for value in net.state_dict().values()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Bit by bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Slow(Listener):
    """Leaves time to be killed in."""

    def on_step(self, step: int, figures: dict[str, float]) -> None:
        time.sleep(0.05)


if __name__ == "__main__":
    name, teacher, data, run, loop, *held_out = sys.argv[1:]
    fit(
        make_stage(name, teacher),
        data,
        LoopConfig(**json.loads(loop)),
        Path(run),
        validation=Path(held_out[0]) if held_out else None,
        listener=Slow(),
    )
