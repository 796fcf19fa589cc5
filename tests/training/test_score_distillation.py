"""Score distillation: the student learns from the difference of assistant and teacher, and from nothing else."""

import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from densescan.data.dataset import Crop
from densescan.diffusion.process import add_noise
from densescan.errors import InputError
from densescan.training.batch import Batch
from densescan.training.batch_norm import evaluating, set_training
from densescan.training.config import LoopConfig
from densescan.training.crop_distance import chamfer_in_crop
from densescan.training.draws import Draws
from densescan.training.engine import Engine
from densescan.training.processes import Processes
from densescan.training.score_distillation import ScoreDistillationConfig, ScoreDistillationStage

stages = runpy.run_path(str(Path(__file__).with_name("stages.py")))
Watched, weights, equal = stages["Watched"], stages["weights"], stages["equal"]
MakeBatch = Callable[..., Batch]
SCORELIDAR = {"scene_weight": 0.5, "point_weight": 0.01}


@pytest.fixture(scope="module", params=["own", "released"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model in either form."""
    folder: str = stages["save_teacher"](tmp_path_factory.mktemp("model"), request.param)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model of the own form."""
    folder: str = stages["save_teacher"](tmp_path_factory.mktemp("own"))
    return folder


def make(teacher: str, **options: object) -> ScoreDistillationStage:
    stage: ScoreDistillationStage = stages["make_stage"]("score", teacher, **options)
    for part in stage.trained.values():  # as the loop does
        for name, net in part.networks.items():
            set_training(net, part.statistics[name])
    return stage


def plain(stage: ScoreDistillationStage) -> tuple[LoopConfig, Processes]:
    """What an engine needs that does not look at gradients."""
    watched = Watched(stage, lr=1e-3)
    return watched.config, watched.processes


def disturb(stage: ScoreDistillationStage, by: float = 0.05) -> None:
    """Make the assistant see other noise than the teacher: everywhere by as much."""
    with torch.no_grad():
        stage.assistants["assistant"].last[2].bias += by


@pytest.mark.parametrize(
    "options", [{}, {"train_encoder": True}, SCORELIDAR], ids=["plain", "encoder", "structural"]
)
def test_all_that_is_trained_learns_and_nothing_else(
    teacher: str, batch: Batch, options: dict[str, object]
) -> None:
    stage = make(teacher, **options)
    engine = Watched(stage, lr=1e-4)
    frozen, begun = weights(*stage.frozen.values()), weights(stage.student)
    for _ in range(2):
        stage.step([batch], engine)
    assert engine.updates == ["assistant", "student"] * 2
    assert equal(weights(*stage.frozen.values()), frozen)
    assert not equal(weights(stage.student), begun)
    assert list(stage.results) == ["encoder", "denoiser"]
    assert ("encoder" in stage.trained["student"].networks) == ("train_encoder" in options)
    statistics = [module for net in (stage.student, *stage.assistants.values()) for module in net.modules()]
    tracked = [m.running_mean for m in statistics if getattr(m, "running_mean", None) is not None]
    expected = [
        m.running_mean for m in stage.teacher.modules() if getattr(m, "running_mean", None) is not None
    ] * 2
    assert equal(tracked, expected), "statistics are frozen"


def test_matrices_in_bfloat16_lose_no_gradient(own: str, batch: Batch) -> None:
    stage = make(own, **SCORELIDAR)
    stage.step([batch], Watched(stage, lr=1e-4, bfloat16=True))


def test_an_assistant_that_equals_the_teacher_teaches_nothing(teacher: str, make_batch: MakeBatch) -> None:
    """And one that differs in its prediction alone moves every sample against the difference."""
    stage = make(teacher, student_steps=(1,))
    begun = weights(stage.student)
    loss = stage.student_loss(stage.generate(make_batch()))
    assert loss.total is not None
    loss.total.backward()
    assert loss.figures["gap"] == pytest.approx(0.0, abs=1e-5)
    quiet = sum(p.grad.abs().sum().item() for p in stage.student.parameters())  # type: ignore[union-attr]
    disturb(stage)
    stage.student.zero_grad()
    loss = stage.student_loss(stage.generate(make_batch()))
    assert loss.total is not None
    loss.total.backward()
    assert loss.figures["gap"] == pytest.approx(0.05, rel=1e-3)
    loud = sum(p.grad.abs().sum().item() for p in stage.student.parameters())  # type: ignore[union-attr]
    assert loud > 1e3 * quiet
    assert equal(weights(stage.student), begun)


def test_the_gradient_is_that_of_the_difference(own: str, make_batch: MakeBatch) -> None:
    """d = -0.05 in every entry: the loss is the mean of d x_0, whatever the points."""
    stage = make(own)
    disturb(stage)
    generated = stage.generate(make_batch())
    loss = stage.student_loss(generated)
    assert loss.total is not None
    assert loss.total.item() == pytest.approx((-0.05 * generated.x_0(0)).mean().item(), rel=1e-4)


def test_the_chamfer_distance_is_added_by_its_weight(own: str, make_batch: MakeBatch) -> None:
    """The assistant is the teacher and teaches nothing: what is left is the distance of the samples that are logged."""
    loss = {}
    for weight in (0.0, 2.0):
        stage = make(own, student_steps=(1,), chamfer_weight=weight)
        generated = stage.generate(make_batch())
        loss[weight] = stage.student_loss(generated)
    assert loss[2.0].total is not None
    samples = zip(generated.x_0(0), generated.batch.singly(), strict=True)
    expected = sum(chamfer_in_crop(x_0, one).total.item() for x_0, one in samples) / 2
    assert loss[2.0].figures["chamfer"] == pytest.approx(expected, rel=1e-5)
    assert loss[2.0].figures["chamfer/left_out"] == 0.0
    assert loss[2.0].total.item() == pytest.approx(2 * expected, rel=1e-3)
    assert loss[0.0].total is not None
    assert loss[0.0].total.item() == pytest.approx(0.0, abs=1e-5)
    assert "chamfer" not in loss[0.0].figures


def test_without_distillation_there_is_no_assistant(own: str, batch: Batch) -> None:
    """The student learns from the truth alone, from the first step on."""
    stage = make(own, student_steps=(1,), chamfer_weight=2.0, score_weight=0.0, head_start=100)
    engine, begun = Watched(stage, lr=1e-4), weights(stage.student)
    logs = stage.step([batch], engine)
    assert engine.updates == ["student"]
    assert not equal(weights(stage.student), begun)
    assert logs["loss"] == pytest.approx(2 * logs["chamfer"])
    assert not any("assistant" in name or name in ("distillation", "gap") for name in logs)


def test_the_weight_of_the_distillation_scales_its_loss(own: str, make_batch: MakeBatch) -> None:
    losses = []
    for weight in (1.0, 3.0):
        stage = make(own, student_steps=(1,), score_weight=weight)
        disturb(stage)
        loss = stage.student_loss(stage.generate(make_batch()))
        assert loss.total is not None
        losses.append(loss.total.item())
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-4)
    assert losses[0] != 0.0


def test_the_chamfer_distance_falls(own: str, make_batch: MakeBatch) -> None:
    stage = make(own, student_steps=(1,), chamfer_weight=1.0)
    engine = Watched(stage, lr=1e-3)
    found = [
        engine.update("student", [stage.student_loss(stage.generate(make_batch()))])["chamfer"]
        for _ in range(5)
    ]
    assert found[-1] < found[0] - 0.01


def test_a_sample_without_points_in_its_crop_is_counted(own: str, make_batch: MakeBatch) -> None:
    stage, batch = make(own, chamfer_weight=1.0), make_batch()
    x_0 = batch.crop.scan.clone().requires_grad_()
    far = torch.cat((x_0[:1], x_0[1:] + 1000.0))
    term, figures = stage.chamfer_term(batch, far)
    assert figures["chamfer/left_out"] == 0.5
    one = chamfer_in_crop(x_0[0], batch.singly()[0]).total
    torch.testing.assert_close(term, one / 2)
    term.backward()
    assert x_0.grad is not None
    assert x_0.grad[1].abs().sum() == 0
    assert x_0.grad[0].abs().sum() > 0
    nothing, figures = stage.chamfer_term(batch, far + 1000.0)
    assert nothing.item() == 0.0
    assert figures["chamfer/left_out"] == 1.0


def test_the_student_s_loss_falls(own: str, make_batch: MakeBatch) -> None:
    """With an assistant that stays, on fixed random numbers, its samples go where the teacher's score points."""
    stage = make(own, student_steps=(1,))
    disturb(stage, 0.3)
    engine = Watched(stage, lr=1e-3)
    losses = []
    for _ in range(6):
        generated = stage.generate(make_batch())
        losses.append(engine.update("student", [stage.student_loss(generated)])["loss"])
    assert losses[-1] < losses[0] - 0.03
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_the_assistant_learns_the_student_s_samples(own: str, make_batch: MakeBatch) -> None:
    stage = make(own, student_steps=(1,))
    engine, losses = Watched(stage, lr=2e-3), []
    for _ in range(6):
        generated = stage.generate(make_batch())
        losses.append(engine.update("assistant", [stage.assistant_loss(generated)])["loss"])
    assert losses[-1] < losses[0] - 0.03


def test_the_assistant_has_a_head_start(own: str, make_batch: MakeBatch) -> None:
    stage = make(own, head_start=2, **SCORELIDAR)
    steps, begun, assistant = Engine(stage.trained, *plain(stage)), weights(stage.student), []
    figures = []
    for steps.step in range(2):
        figures.append(stage.step([make_batch()], steps))
        assistant.append(weights(*stage.assistants.values()))
    assert equal(weights(stage.student), begun)
    assert not equal(*assistant)
    assert figures[1]["gap"] > 0, "it is told how far the assistant is"
    steps.step = 2
    assert stage.step([make_batch()], steps).keys() == figures[0].keys()
    assert not equal(weights(stage.student), begun)


def test_the_structural_terms_fall(own: str, make_batch: MakeBatch) -> None:
    """Both are the means over crops of what lies within them, and draw the scene to the truth."""
    stage = make(own, student_steps=(1,), scene_weight=1.0, point_weight=0.0)
    engine = Watched(stage, lr=2e-3)
    found = []
    for _ in range(8):
        generated = stage.generate(make_batch())
        found.append(engine.update("student", [stage.student_loss(generated)]))
    assert found[-1]["scene_wise"] < 0.9 * found[0]["scene_wise"]
    assert found[0]["loss"] == pytest.approx(found[0]["distillation"] + found[0]["scene_wise"], rel=1e-4)
    assert found[0]["structural/left_out"] == 0.0


def test_a_crop_without_truth_has_no_structural_term(own: str, make_batch: MakeBatch) -> None:
    batch = make_batch()
    truth = batch.crop.truth.clone()
    truth[1, 5:, 0] += 500.0
    poor = batch._replace(crop=batch.crop._replace(truth=truth))
    losses = [make(own, **SCORELIDAR).student_loss(make(own).generate(one)) for one in (batch, poor)]
    assert [loss.figures["structural/left_out"] for loss in losses] == [0.0, 0.5]
    assert losses[1].figures["scene_wise"] < losses[0].figures["scene_wise"]


def test_the_teacher_is_guided_and_the_student_is_not(own: str, make_batch: MakeBatch) -> None:
    stage, batch = make(own, guidance_scale=3.0, student_steps=(1,)), make_batch()
    generated = stage.generate(batch)
    level = stage.draw_level(batch, "test", generated.x_0(0))
    x_t = add_noise(generated.x_0(0), *level, stage.schedule)
    guided = stage.teacher_eps(x_t, level.t, generated.cond)
    plain = stage.teacher(x_t, level.t, generated.cond)
    uncond = stage.teacher(x_t, level.t, stage.encoder.unconditional(2))
    torch.testing.assert_close(guided, uncond + 3.0 * (plain - uncond))
    assert stage.completion.guidance_scale == 1.0
    assert equal([generated.x_0(0)], [make(own, student_steps=(1,)).generate(make_batch()).x_0(0)])


@pytest.mark.parametrize("steps", [(1,), (1, 2, 3)])
def test_a_crop_s_losses_do_not_depend_on_the_others(
    teacher: str, make_batch: MakeBatch, steps: tuple[int, ...]
) -> None:
    stage = make(teacher, student_steps=steps, **SCORELIDAR)
    disturb(stage)
    for loss in (stage.student_loss, stage.assistant_loss):
        together = loss(stage.generate(make_batch(1)))
        singly = [loss(stage.generate(one)) for one in make_batch(1).singly()]
        assert together.total is not None
        parts = [part.total.item() for part in singly if part.total is not None]
        assert together.total.item() == pytest.approx(sum(parts) / 2, rel=1e-4)
        for name, value in together.figures.items():
            expected = sum(part.figures[name] for part in singly) / 2
            tolerance = 1e-2 if name == "gap" else 1e-4  # a root of a mean is not the mean of roots
            assert value == pytest.approx(expected, rel=tolerance), name


def test_steps_are_drawn_for_each_crop(own: str, make_batch: MakeBatch) -> None:
    stage = make(own, student_steps=(1, 2, 3))
    drawn = [
        [samples[0].steps for samples in stage.generate(make_batch(seed)).parts.values()]
        for seed in range(12)
    ]
    assert {len(steps) for steps in drawn} == {1, 2}, "crops of one number of steps go together"
    assert {number for steps in drawn for number in steps} == {1, 2, 3}


def test_crops_of_one_number_of_steps_go_together_and_come_back_in_order(own: str, crop: Crop) -> None:
    stage = make(own, student_steps=(1, 2, 3))
    many = Crop(*(part[[0, 1, 0, 1, 0]] for part in crop))
    generated = stage.generate(Batch(many, Draws(1, range(5))))
    assert 1 < len(generated.parts) < 5
    assert sorted(row for rows in generated.parts for row in rows) == list(range(5))
    (again,) = stage.last_steps(generated)
    for row, one in enumerate(Batch(many, Draws(1, range(5))).singly()):
        alone = stage.generate(one).x_0(0)[0]
        assert torch.allclose(generated.x_0(0)[row], alone, atol=1e-4)
        assert torch.allclose(again[row], alone, atol=1e-4)


def test_all_randomness_comes_from_the_draws(own: str, make_batch: MakeBatch) -> None:
    rows = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng():
            torch.manual_seed(world)
            stage = make(own, **SCORELIDAR)
            rows.append(stage.step([make_batch(seed)], Watched(stage)))
    assert rows[0] == rows[1]
    assert rows[0].keys() == rows[2].keys()
    assert rows[0]["loss"] != rows[2]["loss"]


def test_a_loss_that_is_not_finite_stops_the_run_before_a_weight_moves(own: str, batch: Batch) -> None:
    stage = make(own)
    begun = weights(stage.student, *stage.assistants.values())
    with torch.no_grad():
        stage.teacher.last[2].bias.fill_(torch.nan)
    engine = Watched(stage)
    with pytest.raises(FloatingPointError, match="the loss of the student is nan"):
        engine.update("student", [stage.student_loss(stage.generate(batch))])
    assert equal(weights(stage.student, *stage.assistants.values()), begun)
    with torch.no_grad():
        stage.student.last[2].bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="a sample is not finite"):
        stage.step([batch], engine)


def test_a_student_goes_on_from_a_model_of_the_same_form(own: str, tmp_path: Path, batch: Batch) -> None:
    distilled = stages["save_teacher"](tmp_path / "distilled", seed=1)
    stage, plain = make(own, student=distilled), make(own)
    assert not equal(weights(stage.student), weights(plain.student))
    assert equal(
        weights(stage.teacher, *stage.assistants.values()), weights(plain.teacher, *plain.assistants.values())
    )
    assert not equal(weights(stage.results["encoder"]), weights(plain.results["encoder"])), (
        "with its own encoder"
    )
    assert list(stage.frozen) == ["teacher", "encoder", "student_encoder"]
    stage.step([batch], Watched(stage))
    released = stages["save_teacher"](tmp_path / "released", "released")
    with pytest.raises(InputError, match="expected networks of the teacher's form"):
        make(own, student=released)


def test_validation_completes_the_crop_in_one_and_in_eight_steps(teacher: str, make_batch: MakeBatch) -> None:
    stage, found = make(teacher), []
    for _ in range(2):
        with torch.no_grad(), evaluating(stage.student):
            found.append(stage.validate(make_batch().singly()[0]))
    assert found[0].figures == found[1].figures
    assert list(found[0].clouds) == ["scan", "1 step", "8 steps", "truth"]
    assert len(found[0].clouds["8 steps"]) == 5 * len(found[0].clouds["scan"])
    for steps in (1, 8):
        names = [f"steps_{steps}/{name}" for name in ("cd", "scene_to_truth", "truth_to_scene")]
        cd, forth, back = (found[0].figures[name] for name in names)
        assert cd == pytest.approx((forth + back) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeat": 0}, "repeat and assistant_steps of at least 1"),
        ({"student_steps": ()}, "student_steps of at least 1"),
        ({"min_t": 5, "max_t": 5}, "0 <= min_t < max_t"),
        ({"assistant_lr_factor": 0.0}, "assistant_lr_factor above 0"),
        ({"head_start": -1}, "head_start of at least 0"),
        ({"scene_weight": -1.0}, "expected a score_weight, scene_weight, .* of at least 0, and one above"),
        ({"score_weight": 0.0}, "at least 0, and one above, got 0.0, 0.0, 0.0, 0.0"),
    ],
)
def test_impossible_choices_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScoreDistillationConfig(**options)  # type: ignore[arg-type]


def test_levels_beyond_the_schedule_are_refused(own: str) -> None:
    with pytest.raises(InputError, match="max_t and student_steps of at most 1000, got 1001"):
        make(own, max_t=1001)
