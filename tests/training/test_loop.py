"""The loop with a stage that trains in milliseconds: schedule, files, order of crops, and what stops it."""

import json
import math
import multiprocessing
import resource
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.data.dataset import Crop, CropDataset
from densescan.errors import InputError
from densescan.training.checkpoint import latest_checkpoint
from densescan.training.config import LoopConfig, learning_rate
from densescan.training.ema import decay_after
from densescan.training.loop import Listener, fit

QUICK = LoopConfig(
    max_steps=4, batch_size=2, warmup_steps=2, workers=0, bfloat16=False, cpu=True, checkpoint_every=3
)


class Heard(Listener):
    """Calls a function after every step."""

    def __init__(self, call: Callable[[int, dict[str, float]], object]) -> None:
        self.call = call

    def on_step(self, step: int, figures: dict[str, float]) -> None:
        self.call(step, figures)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.stem for path in (run / "checkpoints").iterdir())


def test_learning_rate_rises_then_falls_as_a_cosine() -> None:
    config = LoopConfig(max_steps=1100, warmup_steps=100, lr=2.0)
    rates = np.array([learning_rate(step, config) for step in range(1100)])
    assert rates[0] == pytest.approx(0.02)
    np.testing.assert_allclose(np.diff(rates[:100]), 0.02)
    assert rates[99] == rates[100] == rates.max() == 2.0
    assert rates[600] == pytest.approx(1.0)
    assert rates[350] == pytest.approx(1 + math.sqrt(0.5))
    assert (np.diff(rates[100:]) < 0).all()
    assert 0 < rates[-1] < 1e-5
    assert learning_rate(0, LoopConfig(warmup_steps=0, lr=3.0)) == 3.0
    assert learning_rate(900, replace(config, schedule="constant")) == 2.0
    assert learning_rate(49, replace(config, schedule="constant")) == pytest.approx(1.0)
    assert learning_rate(30, LoopConfig(max_steps=20, warmup_steps=50, lr=1.0)) == pytest.approx(0.62)


def test_a_run_leaves_its_record(street: Path, tmp_path: Path, line_stage: type) -> None:
    stage, run, heard = line_stage(), tmp_path / "runs" / "one", []
    fit(stage, street, QUICK, run, listener=Heard(lambda *step: heard.append(step)))
    rows = metrics(run)
    assert [row["step"] for row in rows] == [step for step, _ in heard] == [1, 2, 3, 4]
    assert rows == [{"step": step, **figures} for step, figures in heard]
    assert [row["lr"] for row in rows] == [learning_rate(step, QUICK) for step in range(4)]
    assert all(row["grad_norm"] > 0 and row["seconds"] > 0 for row in rows)
    config = json.loads((run / "config.json").read_text())
    assert config == {"loop": asdict(QUICK), "stage": asdict(stage.config)}
    environment = json.loads((run / "env.json").read_text())
    assert environment["torch"] == torch.__version__
    assert (environment["device"], environment["processes"]) == ("cpu", 1)
    assert checkpoints(run) == ["step-0000003", "step-0000004"]


def test_step_s_sees_the_crops_of_its_number(street: Path, tmp_path: Path, line_stage: type) -> None:
    stage = line_stage()
    fit(stage, street, replace(QUICK, seed=5), tmp_path)
    crops = CropDataset(street, stage.crops, seed=5, length=8)
    for step, seen in enumerate(stage.seen):
        for place, i in enumerate((2 * step, 2 * step + 1)):
            assert all(torch.equal(a[place], b) for a, b in zip(seen.crop, crops[i], strict=True))


def test_workers_prepare_the_same_batches(street: Path, tmp_path: Path, line_stage: type) -> None:
    seen: list[list[Crop]] = []
    for workers in (0, 1):
        stage = line_stage()
        fit(stage, street, replace(QUICK, workers=workers), tmp_path / str(workers))
        seen.append([batch.crop for batch in stage.seen])
    assert len(seen[0]) == len(seen[1]) == 4
    for alone, worked in zip(*seen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, worked, strict=True))


def test_a_mistake_found_by_a_worker_is_told_in_one_line(
    street: Path, tmp_path: Path, line_stage: type
) -> None:
    sequence = tmp_path / "data" / "sequences" / "00"
    (sequence / "truth").mkdir(parents=True)
    (sequence / "velodyne").symlink_to(street / "sequences" / "00" / "velodyne")
    for i in range(2):
        (sequence / "truth" / f"{i:06d}.npy").write_bytes(b"spoilt")
    with pytest.raises(InputError, match=r"^cannot read .*/truth/00000.\.npy: [^\n]*$"):
        fit(line_stage(), tmp_path / "data", replace(QUICK, workers=1), tmp_path / "run")


def test_workers_end_with_the_run(street: Path, tmp_path: Path, line_stage: type) -> None:
    """They ignore signals, so that a run which fails must end them, or it would wait for them forever."""
    before = multiprocessing.active_children()
    stage = line_stage()
    stage.spoil = {1: "loss"}
    with pytest.raises(FloatingPointError) as failure:  # keeps the frames of the failed run alive
        fit(stage, street, replace(QUICK, workers=1, max_steps=50), tmp_path)
    left = [child for child in multiprocessing.active_children() if child not in before]
    for child in left:
        child.join(5)
    assert not [child for child in left if child.is_alive()], failure


def test_averages_follow_the_weights(street: Path, tmp_path: Path, line_stage: type) -> None:
    stage, weights = line_stage(), []
    expected = stage.line[0].weight.detach().clone()
    listener = Heard(lambda *_: weights.append(stage.line[0].weight.detach().clone()))
    averages = fit(stage, street, QUICK, tmp_path, listener=listener)
    for step, weight in enumerate(weights, start=1):
        decay = decay_after(step, QUICK.ema)
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averages["line"][0].weight, expected)
    assert not torch.equal(averages["line"][0].weight, stage.line[0].weight)
    assert not averages["line"].training
    assert stage.line.training


def test_the_gradient_is_clipped(street: Path, tmp_path: Path, line_stage: type) -> None:
    """A tiny limit leaves Adam's first moment tiny, which the checkpoint shows."""
    from safetensors.torch import load_file

    fit(line_stage(), street, replace(QUICK, max_steps=1, clip=1e-6), tmp_path)
    state = load_file(tmp_path / "checkpoints" / "step-0000001.safetensors")
    moments = torch.cat([value.flatten() for key, value in state.items() if key.endswith("exp_avg")])
    assert moments.norm().item() == pytest.approx(0.1 * 1e-6, rel=1e-3)
    assert metrics(tmp_path)[0]["grad_norm"] > 1e-3


@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_what_is_not_finite_never_reaches_a_checkpoint(
    street: Path, tmp_path: Path, line_stage: type, spoilt: str
) -> None:
    stage = line_stage()
    stage.spoil = {2: spoilt}
    with pytest.raises(
        FloatingPointError, match=f"{spoilt} of the line is (nan|inf); the last checkpoint is sound"
    ):
        fit(stage, street, replace(QUICK, checkpoint_every=1), tmp_path)
    assert checkpoints(tmp_path) == ["step-0000001", "step-0000002"]
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2]
    assert all(bool(torch.isfinite(p).all()) for p in stage.line.parameters()), "the step was not taken"
    averages = fit(line_stage(), street, replace(QUICK, lr=1e-4), tmp_path)
    assert all(bool(torch.isfinite(p).all()) for p in averages["line"].parameters())


def test_a_finished_run_is_only_read(street: Path, tmp_path: Path, line_stage: type) -> None:
    done = fit(line_stage(), street, QUICK, tmp_path)
    rows, newest = metrics(tmp_path), latest_checkpoint(tmp_path / "checkpoints")
    stage = line_stage(seed=9)
    again = fit(stage, street, QUICK, tmp_path)
    assert not stage.seen
    assert torch.equal(again["line"][0].weight, done["line"][0].weight)
    assert (metrics(tmp_path), latest_checkpoint(tmp_path / "checkpoints")) == (rows, newest)


def test_it_goes_on_with_the_crops_that_were_not_seen(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, replace(QUICK, max_steps=3, batch_size=1, accumulate=2), tmp_path)
    stage = line_stage()
    fit(stage, street, replace(QUICK, max_steps=5, batch_size=1, accumulate=3), tmp_path)
    crops = CropDataset(street, stage.crops, seed=0, length=12)
    assert len(stage.seen) == 6
    for number, seen in enumerate(stage.seen, start=6):
        assert torch.equal(seen.crop.truth[0], crops[number].truth)


@pytest.mark.parametrize("change", [{"seed": 1}, {"optimiser": "sgd"}])
def test_what_a_run_must_keep_is_kept(
    street: Path, tmp_path: Path, line_stage: type, change: dict[str, object]
) -> None:
    fit(line_stage(), street, replace(QUICK, max_steps=3), tmp_path)
    with pytest.raises(InputError, match=r"of another run \(its (seed is 0, got 1|optimiser line is Adam)"):
        fit(line_stage(), street, replace(QUICK, **change), tmp_path)


def test_another_frozen_network_is_refused(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, replace(QUICK, max_steps=3), tmp_path)
    with pytest.raises(
        InputError, match=r"its frozen network guide is [0-9a-f]{64}, here it is [0-9a-f]{64}"
    ):
        fit(line_stage(guide=3.0), street, QUICK, tmp_path)


def test_frozen_networks_stay_as_they_are(street: Path, tmp_path: Path, line_stage: type) -> None:
    stage = line_stage()
    before = stage.guide.weight.clone()
    stage.guide.train()
    fit(stage, street, QUICK, tmp_path)
    assert torch.equal(stage.guide.weight, before)
    assert not stage.guide.training
    assert all(p.grad is None and not p.requires_grad for p in stage.guide.parameters())


@pytest.mark.parametrize("statistics", ["frozen", "updated"])
def test_statistics_are_as_the_stage_says(
    street: Path, tmp_path: Path, line_stage: type, statistics: str
) -> None:
    stage = line_stage()
    stage.statistics = statistics
    fit(stage, street, QUICK, tmp_path)
    steps = stage.line[1].num_batches_tracked.item()
    assert steps == (0 if statistics == "frozen" else 4)
    assert stage.line[1].training == (statistics == "updated")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    street: Path, tmp_path: Path, line_stage: type, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2; the same command goes on"):
        fit(
            line_stage(),
            street,
            QUICK,
            tmp_path,
            listener=Heard(lambda s, _: s == 2 and signal.raise_signal(number)),
        )
    assert checkpoints(tmp_path) == ["step-0000002"]
    assert signal.getsignal(number) is before
    again, whole = tmp_path / "again", line_stage()
    expected = fit(whole, street, QUICK, again)
    assert torch.equal(
        fit(line_stage(), street, QUICK, tmp_path)["line"][0].weight, expected["line"][0].weight
    )


def test_a_second_interrupt_stops_at_once(street: Path, tmp_path: Path, line_stage: type) -> None:
    def interrupt(step: int, _: object) -> None:
        for _ in range(2):  # to this thread: of two that wait for another one, one is lost
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            fit(line_stage(), street, QUICK, tmp_path, listener=Heard(interrupt))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "checkpoints").exists()


def test_a_full_disk_costs_nothing_that_was_saved(street: Path, tmp_path: Path, line_stage: type) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, _: object) -> None:
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, before[1]))

    config = replace(QUICK, checkpoint_every=2, max_steps=6)
    try:
        with pytest.raises(InputError, match=r"cannot write .*step-0000004.safetensors: .*free some space"):
            fit(line_stage(), street, config, tmp_path, listener=Heard(fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints(tmp_path) == ["step-0000002"]
    averages = fit(line_stage(), street, config, tmp_path)
    expected = fit(line_stage(), street, config, tmp_path / "again")
    assert torch.equal(averages["line"][0].weight, expected["line"][0].weight)


def test_as_many_checkpoints_stay_as_asked_for(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, replace(QUICK, checkpoint_every=1, keep=3), tmp_path)
    assert checkpoints(tmp_path) == ["step-0000002", "step-0000003", "step-0000004"]


def test_a_run_longer_than_asked_for_is_refused(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, QUICK, tmp_path)
    with pytest.raises(
        InputError, match=r"step-0000004.safetensors has 4 steps behind it, more than max_steps"
    ):
        fit(line_stage(), street, replace(QUICK, max_steps=3), tmp_path)


def test_a_checkpoint_of_other_networks_is_refused(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, replace(QUICK, max_steps=3), tmp_path)
    path = tmp_path / "checkpoints" / "step-0000003.safetensors"
    with pytest.raises(
        InputError, match=f"{path} is a checkpoint of another run .averages/line/0.bias is of"
    ):
        fit(line_stage(width=4), street, QUICK, tmp_path)


def test_a_truncated_checkpoint_is_refused(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, replace(QUICK, checkpoint_every=1), tmp_path)
    path = tmp_path / "checkpoints" / "step-0000004.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=f"cannot read the checkpoint {path}.*delete it to go on"):
        fit(line_stage(), street, QUICK, tmp_path)
    path.unlink()
    stage = line_stage()
    fit(stage, street, QUICK, tmp_path)
    assert len(stage.seen) == 1, "it goes on from the one before"


def test_another_stage_in_the_same_folder_is_refused(street: Path, tmp_path: Path, line_stage: type) -> None:
    fit(line_stage(), street, replace(QUICK, max_steps=2), tmp_path)
    config = (tmp_path / "config.json").read_text()
    with pytest.raises(
        InputError, match=r"config.json: the run was started with prior_weight = 0.0, got 0.5"
    ):
        fit(line_stage(prior=0.5), street, QUICK, tmp_path)
    assert (tmp_path / "config.json").read_text() == config


def test_nothing_is_written_without_data(tmp_path: Path, line_stage: type) -> None:
    with pytest.raises(InputError, match="holds no sequences"):
        fit(line_stage(), tmp_path / "none", QUICK, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": 10_000_000}, "max_steps"),
        ({"max_minutes": -1.0}, "max_minutes"),
        ({"batch_size": 0}, "batch_size"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"lr": 0.0}, "lr"),
        ({"clip": -1.0}, "clip"),
        ({"ema": 1.0}, "ema"),
        ({"accumulate": 0}, "accumulate"),
        ({"keep": 0}, "keep"),
        ({"validate_every": 0}, "validate_every"),
        ({"seed": -1}, "seed"),
        ({"workers": -1}, "workers"),
        ({"warmup_steps": -1}, "warmup_steps"),
    ],
)
def test_impossible_training_is_refused(change: dict[str, float], rule: str) -> None:
    with pytest.raises(InputError, match=f"expected training with .*{rule}"):
        replace(QUICK, **change)
