"""Percentages in sentences are those of the records."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from densescan.evaluation.records import read_run

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benchmarks" / "results" / "evaluation"
JITTERED = ("jitter-0.1", "jitter-0.2", "jitter-0.3", "jitter-0.1-60", "jitter-0.2-60")


@cache
def cd(split: str, method: str) -> float:
    """Mean over frames [m]."""
    return float(np.mean([row.scores["cd"] for row in read_run(RECORDS / split / f"{method}.jsonl").rows]))


def best_jitter(split: str) -> float:
    return min(cd(split, method) for method in JITTERED)


def below_jitter(split: str, method: str = "small") -> int:
    """By how many per cent the CD is lower."""
    return round(100 * (1 - cd(split, method) / best_jitter(split)))


def below(split: str, method: str, other: str) -> int:
    return round(100 * (1 - cd(split, method) / cd(split, other)))


def above(split: str, method: str, other: str) -> int:
    return round(100 * (cd(split, method) / cd(split, other) - 1))


def on(splits: str, figure: Callable[..., int], *methods: str) -> list[int]:
    return [figure(split, *methods) for split in splits.split()]


DRIVES = "raw0005 raw0009"
STUDENTS = ("distillation-dpo-8", "score-distillation-8")
CLAIMS = {
    "README.md": (
        (r"CD is (\d+) % below that of the best jitter", on("raw0005", below_jitter)),
        (r"and (\d+) % below that of the jittered", on("raw0005", below, "small", "refined-small-0.1")),
        (r"a single step costs (\d+) % of CD", on("raw0005", above, "small-steps1", "small")),
        (r"CD is (\d+) and (\d+) % below the best jitter's", on("raw0009 held-out", below_jitter)),
        (r"CD (\d+) and (\d+) % higher on the two drives", on(DRIVES, above, "teacher-50", "small")),
    ),
    "docs/evaluation.md": (
        (
            r"its CD is (\d+) % \(raw 0009\), (\d+) % \(raw 0005\) and (\d+) % \(held-out\) below the best",
            on("raw0009 raw0005 held-out", below_jitter),
        ),
        (
            r"has a CD (\d+) %, (\d+) % and (\d+) % lower",
            on("raw0009 raw0005 held-out", below, "small", "refined-small-0.1"),
        ),
        (
            r"has a CD (\d+) %, (\d+) % and (\d+) % above its own eight steps",
            on("raw0009 raw0005 held-out", above, "small-steps1", "small"),
        ),
    ),
    "docs/results.md": (
        (
            r"is (\d+) % worse in CD than the refined teacher on raw 0009 and (\d+) % worse in CD on raw 0005",
            on("raw0009 raw0005", above, "refined-small-0.1", "teacher-50"),
        ),
        (
            r"CD is (\d+) % \(raw 0005\), (\d+) % \(raw 0009\) and (\d+) % \(held-out\) lower",
            on("raw0005 raw0009 held-out", below, "small", "teacher-50"),
        ),
        (
            r"on the drives a CD (\d+) % below that of the teacher's own 8",
            sorted(set(on(DRIVES, below, "score-distillation-8", "teacher-8"))),
        ),
        (r"level on raw 0009 and (\d+) % worse on raw 0005", on("raw0005", above, *STUDENTS)),
        (
            r"The plain student loses (\d+) % and (\d+) %",
            on(DRIVES, above, "distillation-dpo-1", "distillation-dpo-8"),
        ),
        (
            r"costs (\d+) % \(raw 0005\) and (\d+) % \(raw 0009\) of CD against its own eight",
            on(DRIVES, above, "small-steps1", "small"),
        ),
    ),
}


@pytest.mark.parametrize(
    ("page", "pattern", "figures"), [(page, *claim) for page, claims in CLAIMS.items() for claim in claims]
)
def test_the_sentence_says_what_was_measured(page: str, pattern: str, figures: list[int]) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    found = re.search(pattern, text)
    assert found, "the sentence is gone: take it off the list"
    assert [int(one) for one in found.groups()] == figures


def test_the_scenes_of_a_gpu_are_those_of_a_processor() -> None:
    """46 streets completed on both, as benchmarks/README.md says."""
    studies = ROOT / "benchmarks" / "results" / "studies"
    processor = {row.key: row for row in read_run(studies / "devices" / "teacher-50-cpu.jsonl").rows}
    gpu = [row for row in read_run(studies / "shorter" / "teacher-50.jsonl").rows if "H200" in row.hardware]
    both = [(row, processor[row.key]) for row in gpu if row.key in processor]
    assert len(both) == 46
    for figure, mean, most in (("cd", 0.00003, 0.0014), ("iou_0.5", 0.00001, 0.003)):
        apart = np.array([a.scores[figure] - b.scores[figure] for a, b in both])
        assert round(abs(apart.mean()), 5) == mean
        assert float(f"{np.abs(apart).max():.2g}") == most


def test_seconds_on_a_gpu_are_those_of_the_records() -> None:
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    found = re.search(r"take (\S+) s against (\S+) s, and the rest, .*?, (\S+) s in both", page)
    assert found
    networks, rest = [], []
    for method in ("distillation-dpo-8", "teacher-50"):
        rows = read_run(RECORDS / "held-out" / f"{method}.jsonl").rows
        seconds = [row.seconds for row in rows if "H200" in row.hardware]
        networks.append(round(float(np.median([one["denoise"] for one in seconds])), 2))
        rest.append(round(float(np.median([one["total"] - one["denoise"] for one in seconds])), 1))
    assert [float(one) for one in found.groups()] == [*networks, rest[0]]
    assert rest[0] == rest[1]


def test_with_a_refiner_of_equal_learning() -> None:
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    found = re.search(r"an earlier stage of it was (\d+) % lower on the held-out streets", page)
    second = read_run(RECORDS.parent / "studies" / "further" / "held-out" / "second.jsonl")
    assert found
    assert int(found[1]) == round(100 * (1 - second.values("cd").mean() / cd("held-out", "teacher-50")))


def test_the_preference_costs_that_much_of_cd_on_the_held_out_streets() -> None:
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    found = re.search(r"better in JSD and IoU, and (\S+) % worse in CD", page)
    assert found
    assert float(found[1]) == round(100 * (cd("held-out", STUDENTS[0]) / cd("held-out", STUDENTS[1]) - 1), 1)
