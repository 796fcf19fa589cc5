"""Distillation-DPO: pairs, two assistants and a student that learn in turn, by any of the objectives."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densescan.errors import InputError
from densescan.losses.distillation import Scored
from densescan.metrics.base import Metric
from densescan.training.batch import Batch
from densescan.training.batch_norm import set_training
from densescan.training.crop_distance import mean_chamfer
from densescan.training.distillation_dpo import (
    DistillationDpoConfig,
    DistillationDpoStage,
    RankedPairs,
    objective,
)
from densescan.training.pairs import ChamferInCrop, PairConfig, Ranking

stages = runpy.run_path(str(Path(__file__).with_name("stages.py")))
Watched, weights, equal = stages["Watched"], stages["weights"], stages["equal"]
MakeBatch = Callable[..., Batch]
OBJECTIVES = ("full", "score-distillation", "preference-as-printed", "preference-as-released")


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


def make(teacher: str, **options: object) -> DistillationDpoStage:
    stage: DistillationDpoStage = stages["make_stage"]("dpo", teacher, **options)
    for part in stage.trained.values():  # as the loop does
        for name, net in part.networks.items():
            set_training(net, part.statistics[name])
    return stage


def disturb(stage: DistillationDpoStage, **by: float) -> None:
    """Make assistants see other noise than the teacher: everywhere by as much."""
    with torch.no_grad():
        for name, offset in by.items():
            stage.assistants[name].last[2].bias += offset


def with_ranking(pairs: RankedPairs, first_wins: list[bool], kept: list[bool]) -> RankedPairs:
    ranking = Ranking(torch.tensor(first_wins), torch.tensor(kept), pairs.ranking.figures)
    return pairs._replace(ranking=ranking)


@pytest.mark.parametrize("one_assistant", [False, True])
def test_all_that_is_trained_learns_and_nothing_else(teacher: str, batch: Batch, one_assistant: bool) -> None:
    stage = make(teacher, one_assistant=one_assistant, weight=0.5, assistant_steps=2)
    engine = Watched(stage, lr=1e-4)
    frozen, begun = weights(*stage.frozen.values()), weights(stage.student)
    figures = stage.step([batch], engine)
    names = ["assistant"] if one_assistant else ["assistant_w", "assistant_l"]
    assert engine.updates == [*names * 2, "student"]
    assert equal(weights(*stage.frozen.values()), frozen)
    assert not equal(weights(stage.student), begun)
    assert list(stage.trained) == ["student", *names]
    ranked = {"cd_w", "cd_l", "margin", "first_wins", "pairs/ties", "pairs/failures", "gap_w", "gap_l"}
    learnt = {f"{name}/{figure}" for name in names for figure in ("loss", "grad_norm")}
    assert figures.keys() == ranked | learnt | {"loss", "grad_norm"}
    assert figures["cd_w"] < figures["cd_l"]
    assert figures["gap_w"] > 0


def test_the_student_learns_only_where_assistants_differ_from_the_teacher(
    own: str, make_batch: MakeBatch
) -> None:
    gradients = {}
    for case, offsets in {"none": {}, "w": {"assistant_w": 0.1}, "l": {"assistant_l": 0.1}}.items():
        stage = make(own, weight=0.5)
        disturb(stage, **offsets)
        loss = stage.student_loss(stage.pairs(make_batch()))
        assert loss.total is not None
        loss.total.backward()
        gradients[case] = sum(p.grad.abs().sum().item() for p in stage.student.parameters())  # type: ignore[union-attr]
    assert gradients["none"] == 0.0
    assert gradients["l"] > gradients["w"] > 0.0, "losers weigh 1.5, winners 0.5"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_is_the_one_of_that_name(own: str, make_batch: MakeBatch, name: str) -> None:
    """d is -0.2 for winners and 0.1 for losers, everywhere: every objective is a sum of two means."""
    stage = make(own, objective=name, weight=0.5, omega=2.0)
    disturb(stage, assistant_w=0.2, assistant_l=-0.1)
    pairs = stage.pairs(make_batch())
    assert pairs.ranking.kept.all()
    d_w, d_l = -0.2 * pairs.winners.mean().item(), 0.1 * pairs.losers.mean().item()
    expected = {
        "full": d_w + d_l + 0.5 * (d_l - d_w) / 2,
        "score-distillation": d_w + d_l,
        "preference-as-printed": (d_l - d_w) / 2,
        "preference-as-released": (d_w - d_l) / 2,
    }
    loss = stage.student_loss(pairs)
    assert loss.total is not None
    assert loss.total.item() == pytest.approx(expected[name], rel=1e-3)
    assert loss.figures["gap_w"] == pytest.approx(0.2, rel=1e-3)
    assert loss.figures["gap_l"] == pytest.approx(0.1, rel=1e-3)


def test_the_chamfer_distance_counts_both_samples_of_every_crop(own: str, make_batch: MakeBatch) -> None:
    """Also of crops that the objective leaves out; without a weight these teach nothing at all."""
    for weight in (0.0, 3.0):
        stage = make(own, chamfer_weight=weight)
        pairs = stage.pairs(make_batch())
        left_out = stage.student_loss(with_ranking(pairs, [True, True], [False, False]))
        kept = stage.student_loss(pairs)
        if weight == 0.0:
            assert left_out.total is None
            continue
        samples = [pairs.generated.x_0(i) for i in (0, 1)]
        each = [mean_chamfer(x_0, pairs.generated.batch)[0].item() for x_0 in samples]
        assert left_out.total is not None
        assert kept.total is not None
        assert left_out.total.item() == pytest.approx(3 * sum(each) / 2, rel=1e-4)
        assert kept.total.item() == pytest.approx(left_out.total.item(), rel=1e-4), (
            "assistants are the teacher"
        )
        assert left_out.figures.keys() == kept.figures.keys()


def test_the_student_s_loss_falls(own: str, make_batch: MakeBatch) -> None:
    """With assistants that stay, on fixed random numbers."""
    stage = make(own, student_steps=(1,), weight=0.5)
    disturb(stage, assistant_w=0.3, assistant_l=0.2)
    engine = Watched(stage, lr=1e-3)
    losses = [
        engine.update("student", [stage.student_loss(stage.pairs(make_batch()))])["loss"] for _ in range(5)
    ]
    assert losses[-1] < losses[0] - 0.03


def test_each_assistant_learns_its_side(own: str, make_batch: MakeBatch) -> None:
    """The loss is that of Eq. 20 on winners or losers; one assistant has the mean of both."""
    pairs = make(own).pairs(make_batch())
    swapped = with_ranking(pairs, (~pairs.ranking.first_wins).tolist(), [True, True])
    stage, one = make(own), make(own, one_assistant=True)
    asked: list[Tensor] = []
    original = stage.denoising_errors

    def spy(assistant: torch.nn.Module, x_0: Tensor, *more: object) -> Tensor:
        asked.append(x_0)
        return original(assistant, x_0, *more)  # type: ignore[arg-type]

    stage.denoising_errors = one.denoising_errors = spy  # type: ignore[method-assign, assignment]
    losses = [stage.assistant_loss(name, pairs).total for name in ("assistant_w", "assistant_l")]
    assert torch.equal(asked[0], pairs.winners)
    assert torch.equal(asked[1], pairs.losers)
    assert not torch.equal(asked[0], asked[1])
    assert all(loss is not None and loss.requires_grad for loss in losses)
    one.assistant_loss("assistant", swapped)
    assert torch.equal(asked[2], pairs.losers)
    assert torch.equal(asked[3], pairs.winners)
    assert one.assistant_w is one.assistant_l


def test_pairs_without_a_winner_are_left_out(own: str, make_batch: MakeBatch) -> None:
    """A kept crop weighs as in a batch where both are kept; where none is, there is nothing to learn from."""
    stage, totals = make(own, weight=0.5), []
    disturb(stage, assistant_w=0.2, assistant_l=-0.1)
    for kept in ([True, False], [False, True], [True, True]):
        pairs = with_ranking(stage.pairs(make_batch()), [True, False], kept)
        losses = [
            *(stage.assistant_loss(name, pairs) for name in stage.assistants),
            stage.student_loss(pairs),
        ]
        totals.append([loss.total.item() for loss in losses if loss.total is not None])
    for first, second, both in zip(*totals, strict=True):
        assert first + second == pytest.approx(both, rel=1e-4)
    pairs = with_ranking(pairs, [True, False], [False, False])
    assert [stage.assistant_loss(name, pairs) for name in stage.assistants] == [(None, {})] * 2
    assert stage.student_loss(pairs).total is None


def test_a_metric_that_fails_leaves_the_step_without_an_update(
    own: str, batch: Batch, monkeypatch: pytest.MonkeyPatch, engine: Callable[..., object]
) -> None:
    def fail(self: Metric, pred: object, truth: object) -> float:
        raise InputError("no")

    monkeypatch.setattr(ChamferInCrop, "measure", fail)
    stage = make(own)
    begun = weights(stage.student, *stage.assistants.values())
    figures = stage.step([batch], engine(stage))  # type: ignore[arg-type]
    assert figures["pairs/failures"] == 1.0
    assert equal(weights(stage.student, *stage.assistants.values()), begun)
    monkeypatch.undo()
    assert figures.keys() == stage.step([batch], engine(stage)).keys(), "the same names in every step"  # type: ignore[arg-type]


def test_a_batch_is_the_mean_of_its_crops(teacher: str, make_batch: MakeBatch) -> None:
    stage = make(teacher, student_steps=(1, 2, 3), weight=0.5)
    disturb(stage, assistant_w=0.2, assistant_l=-0.1)
    found = []
    for batches in ([make_batch(2)], make_batch(2).singly()):
        pairs = [stage.pairs(batch) for batch in batches]
        losses = [stage.student_loss(pair) for pair in pairs]
        errors = [stage.assistant_loss("assistant_w", pair) for pair in pairs]
        found.append([sum(loss.total.item() for loss in ls) / len(ls) for ls in (losses, errors)])  # type: ignore[union-attr]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("same_noise", [True, False])
def test_the_release_s_pairs_are_there_as_well(own: str, make_batch: MakeBatch, same_noise: bool) -> None:
    stage = make(
        own, pairs=PairConfig(metric="jsd", same_noise=same_noise, lams=(1.0, 1.2)), student_steps=(1,)
    )
    generated = stage.generate(make_batch())
    ((first, second),) = generated.parts.values()
    offsets = first.x_T - first.x_init, second.x_T - second.x_init
    assert torch.allclose(1.2 * offsets[0], offsets[1], atol=1e-5) == same_noise
    figures = stage.student_loss(stage.pairs(make_batch())).figures
    assert {"jsd_w", "jsd_l"} <= figures.keys()


def test_all_randomness_comes_from_the_draws(own: str, make_batch: MakeBatch) -> None:
    rows = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng():
            torch.manual_seed(world)
            stage = make(own, weight=0.5)
            rows.append(stage.step([make_batch(seed)], Watched(stage)))
    assert rows[0] == rows[1]
    assert rows[0]["loss"] != rows[2]["loss"]


def test_a_loss_that_is_not_finite_stops_the_run(own: str, batch: Batch) -> None:
    stage = make(own)
    with torch.no_grad():
        stage.teacher.last[2].bias.fill_(torch.nan)
    begun = weights(stage.student)
    with pytest.raises(FloatingPointError, match="the loss of the student is nan"):
        stage.step([batch], Watched(stage))
    assert equal(weights(stage.student), begun)


@pytest.mark.parametrize("options", [{"weight": -0.1}, {"omega": 0.0}])
def test_impossible_weights_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected weight >= 0 and omega > 0"):
        DistillationDpoConfig(**options)  # type: ignore[arg-type]


def test_an_unknown_objective_is_refused() -> None:
    config = DistillationDpoConfig()
    object.__setattr__(config, "objective", "best")  # as it comes where nobody checks types
    with pytest.raises(InputError, match="unknown objective 'best': known are full, score-distillation"):
        config.__post_init__()


def test_the_objectives_are_all_listed() -> None:
    x_0 = torch.ones(1, 2, 3, requires_grad=True)
    winner, loser = Scored(x_0, 2 * x_0, x_0), Scored(x_0, 4 * x_0, x_0)
    values = [
        objective(winner, loser, DistillationDpoConfig(objective=name)).total.item()  # type: ignore[arg-type]
        for name in OBJECTIVES
    ]
    assert values == pytest.approx([1 + 3 + (3 - 1), 1 + 3, 3 - 1, 1 - 3])
