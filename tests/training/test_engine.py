"""Optimiser steps: what is averaged, clipped, scheduled and refused."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from densescan.training.batch import Batch, Loss, mean_figures
from densescan.training.config import LoopConfig
from densescan.training.engine import Engine, Trained
from densescan.training.processes import Processes

PLAIN = LoopConfig(optimiser="sgd", lr=0.5, schedule="constant", warmup_steps=0, bfloat16=False, clip=1e9)


def make(config: LoopConfig = PLAIN, **lr_factors: float) -> tuple[dict[str, nn.Parameter], Engine]:
    """One parameter (1, 2, 3) for each optimiser, named as `lr_factors`."""
    nets = {name: nn.ParameterDict({"w": nn.Parameter(torch.tensor([1.0, 2, 3]))}) for name in lr_factors}
    trained = {name: Trained({"net": nets[name]}, lr_factor=factor) for name, factor in lr_factors.items()}
    return {name: net["w"] for name, net in nets.items()}, Engine(trained, config, Processes(cpu=True))


def test_a_step_is_against_the_mean_gradient() -> None:
    parameters, engine = make(a=1.0)
    w = parameters["a"]
    figures = engine.update("a", (Loss(k * w.sum(), {"k": k}) for k in (1.0, 3.0)))
    torch.testing.assert_close(w.detach(), torch.tensor([1.0, 2, 3]) - 0.5 * 2)
    assert figures == {"k": 2.0, "loss": 12.0, "grad_norm": pytest.approx(2 * 3**0.5)}


def test_each_loss_is_gone_before_the_next_is_computed() -> None:
    parameters, engine = make(a=1.0)
    w, events = parameters["a"], []

    def losses() -> Iterator[Loss]:
        for i in range(2):
            events.append(f"computed {i}")
            total = w.square().sum()
            total.register_hook(lambda _, i=i: events.append(f"backward {i}"))
            yield Loss(total, {})

    engine.update("a", losses())
    assert events == ["computed 0", "backward 0", "computed 1", "backward 1"]


@pytest.mark.parametrize("factor", [0.1, 2.0])
def test_rates_follow_schedule_and_factor(factor: float) -> None:
    config = replace(PLAIN, schedule="cosine", warmup_steps=4, max_steps=10)
    parameters, engine = make(config, a=factor)
    engine.step = 1
    engine.update("a", [Loss(parameters["a"].sum(), {})])
    torch.testing.assert_close(parameters["a"].detach(), torch.tensor([1.0, 2, 3]) - 0.5 * 2 / 4 * factor)


def test_the_gradient_is_clipped_to_its_norm() -> None:
    parameters, engine = make(replace(PLAIN, clip=0.2), a=1.0)
    w = parameters["a"]
    figures = engine.update("a", [Loss((w * torch.tensor([3.0, 0, 4])).sum(), {})])
    assert figures["grad_norm"] == pytest.approx(5.0)
    torch.testing.assert_close(w.grad, torch.tensor([0.6, 0, 0.8]) * 0.2)


def test_one_optimiser_s_step_leaves_the_others_alone() -> None:
    parameters, engine = make(a=1.0, b=1.0)
    a, b = parameters.values()
    engine.update("a", [Loss((a * b).sum(), {})])
    assert b.grad is None
    assert torch.equal(b.detach(), torch.tensor([1.0, 2, 3]))
    assert not torch.equal(a.detach(), b.detach())
    engine.update("b", [Loss((a.detach() * b).sum(), {})])
    assert a.grad is None


def test_frozen_parameters_of_a_trained_network_stay() -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    engine = Engine({"a": Trained({"net": net})}, PLAIN, Processes(cpu=True))
    before = net.bias.clone()
    engine.update("a", [Loss(net(torch.ones(1, 2)).sum(), {})])
    assert torch.equal(net.bias, before)


def test_a_batch_left_out_counts_as_zero() -> None:
    parameters, engine = make(a=1.0)
    w = parameters["a"]
    figures = engine.update("a", [Loss(None, {"left_out": 1.0}), Loss(w.sum(), {"left_out": 0.0})])
    torch.testing.assert_close(w.detach(), torch.tensor([1.0, 2, 3]) - 0.25)
    assert figures == {"left_out": 0.5, "loss": 3.0, "grad_norm": pytest.approx(0.5 * 3**0.5)}


def test_figures_may_be_tensors() -> None:
    parameters, engine = make(a=1.0)
    w = parameters["a"]
    found = engine.update(
        "a", [Loss(w.sum(), {"b": w.max(), "c": 1.0}), Loss(w.sum(), {"b": w.min(), "c": 2.0})]
    )
    assert found == {"b": 2.0, "c": 1.5, "loss": 6.0, "grad_norm": pytest.approx(3**0.5)}
    assert all(type(value) is float for value in found.values())


def test_where_all_is_left_out_no_step_is_taken() -> None:
    parameters, engine = make(LoopConfig(), a=1.0)
    engine.update("a", [Loss(parameters["a"].sum(), {})])
    before = parameters["a"].detach().clone()
    assert engine.update("a", [Loss(None, {})]) == {"loss": 0.0, "grad_norm": 0.0}
    assert torch.equal(parameters["a"].detach(), before), "not even the momentum of Adam moves it"


@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_what_is_not_finite_is_refused_before_a_weight_changes(spoilt: str) -> None:
    parameters, engine = make(a=1.0)
    w = parameters["a"]
    good, bad = w.sum(), w.sum()
    if spoilt == "loss":
        bad = bad * torch.inf
    else:
        bad.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(
        FloatingPointError, match=f"the .*{spoilt} of the a is (inf|nan); the last checkpoint"
    ):
        engine.update("a", [Loss(good, {}), Loss(bad, {})])
    assert torch.equal(w.detach(), torch.tensor([1.0, 2, 3]))


def test_losses_are_computed_under_autocast_and_go_backward_outside() -> None:
    net = nn.Linear(2, 2)
    engine = Engine({"a": Trained({"net": net})}, replace(PLAIN, bfloat16=True), Processes(cpu=True))
    seen = []

    def losses() -> Iterator[Loss]:
        out = net(torch.ones(1, 2))
        seen.append(out.dtype)
        out.register_hook(lambda _: seen.append(torch.is_autocast_enabled("cpu")))
        yield Loss(out.float().sum(), {})

    engine.update("a", losses())
    assert seen == [torch.bfloat16, False]


def test_accumulated_batches_equal_the_whole_batch(
    make_batch: Callable[..., Batch], line_stage: type, engine: Callable[..., Engine]
) -> None:
    """In float64, with Adam, for five steps; frozen statistics, so that crops do not see each other."""
    weights = []
    for accumulate in (False, True):
        stage = line_stage()
        stage.line.double()
        stage.guide.double()
        stage.line[1].eval()
        steps = engine(stage, lr=1e-2, clip=1.0)
        for seed in range(5):
            batch = make_batch(seed)
            stage.step(batch.singly() if accumulate else [batch], steps)
        weights.append([parameter.detach().clone() for parameter in stage.line.parameters()])
    for whole, accumulated in zip(*weights, strict=True):
        torch.testing.assert_close(whole, accumulated, rtol=1e-9, atol=1e-11)
    assert not torch.equal(weights[0][0], line_stage().line[0].weight.double())


def test_mean_figures_want_the_same_names() -> None:
    assert mean_figures([{"a": 1.0, "b": 4.0}, {"b": 0.0, "a": 3.0}]) == {"a": 2.0, "b": 2.0}
    assert mean_figures([]) == {}
    with pytest.raises(KeyError, match="b"):
        mean_figures([{"a": 1.0}, {"a": 1.0, "b": 2.0}])
