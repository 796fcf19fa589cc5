"""Complete every frame of a split by one method, measure every scene, record every score."""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from densescan.data.split import Split
from densescan.errors import InputError
from densescan.evaluation.measures import MEASURES, Scores
from densescan.evaluation.measuring import Measurer, measuring
from densescan.evaluation.methods import Method
from densescan.evaluation.records import Header, Row, Run, append, describe_split, read_run, resume

FAILURES = (InputError, FloatingPointError, MemoryError, torch.OutOfMemoryError)
"""What may go wrong with a frame; anything else is an error of the program and stops it."""

OnFrame = Callable[[int, int], None]
"""on_frame(done, total): called at the start and after every frame."""


@dataclass(frozen=True)
class Plan:
    """What to evaluate on, and how."""

    split_name: str
    """What the records call the split."""
    seed: int = 0
    """Of the whole evaluation; each frame has a seed of its own, see `frame_seed`."""
    metrics: tuple[str, ...] = tuple(MEASURES)
    """Names of the measures."""
    keep_going: bool = False
    """Record a frame that fails and go on; the method then gets no mean."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, commit, processor: goes into the records."""


@dataclass(frozen=True)
class _Pending:
    """A frame whose scores are being computed."""

    row: dict[str, Any]
    scores: "Future[Scores]"


def frame_seed(seed: int, key: str) -> int:
    """A frame's own seed in [0, 2^63): the same for every method, whatever frames are done before it or beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") >> 1


def evaluate(
    method: Method,
    split: Split,
    record: Path,
    plan: Plan,
    measurer: Measurer | None = None,
    on_frame: OnFrame | None = None,
) -> Run:
    """Evaluate one method, or go on where its record stops.

    Rows are written in the order of the split, each as soon as it is known, and do not depend on the number of workers.

    Args: record: JSON lines file in an existing folder. measurer: see `measuring`; None: measure in this process.
    Raises: InputError: a frame failed (unless `keep_going`), with its key and the reason; or the record is of another
        method, split, seed or metrics. MemoryError, FloatingPointError: likewise for a frame.
    """
    (run,) = evaluate_together([(method, record)], split, plan, measurer, on_frame)
    return run


def evaluate_together(
    methods: Sequence[tuple[Method, Path]],
    split: Split,
    plan: Plan,
    measurer: Measurer | None = None,
    on_frame: OnFrame | None = None,
) -> list[Run]:
    """Evaluate methods frame by frame in turn, each into its record, so that those that sample alike sample once.

    Arguments and errors: see `evaluate`.
    """
    if measurer is None:
        with measuring(0) as measurer:
            return evaluate_together(methods, split, plan, measurer, on_frame)
    every = [_Evaluation(method, split, record, plan, measurer) for method, record in methods]
    report = on_frame or (lambda done, total: None)
    first = min(one.done for one in every)
    report(first, len(split))
    for i in range(first, len(split) + measurer.ahead):
        for one in every:
            one.visit(i)
        done = min(one.done for one in every)
        if done > first:
            report(done, len(split))
            first = done
    return [read_run(record) for _, record in methods]


class _Evaluation:
    """One method on its way through a split. done: how many rows its record has."""

    def __init__(self, method: Method, split: Split, record: Path, plan: Plan, measurer: Measurer) -> None:
        self.method, self.split, self.record, self.plan, self.measurer = method, split, record, plan, measurer
        rows = resume(record, _header(method, split.keys, plan), split.keys)
        _check_failures(record, rows, plan)
        self.done = len(rows)
        self._waiting: deque[_Pending] = deque()

    def visit(self, i: int) -> None:
        """Start frame i, unless its row is there, and write the row of the frame that has waited long enough."""
        if self.done + len(self._waiting) <= i < len(self.split):
            self._waiting.append(_start(self.method, self.split, i, self.plan, self.measurer))
        if self._waiting and (len(self._waiting) > self.measurer.ahead or i >= len(self.split)):
            append(self.record, _finished(self._waiting.popleft(), self.plan))
            self.done += 1


def hardware(device: str, environment: dict[str, Any]) -> str:
    """Name of what computes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{environment.get('cpu', 'unknown processor')}, {threads} thread{'s' if threads > 1 else ''}"


def _header(method: Method, keys: Sequence[str], plan: Plan) -> Header:
    split = describe_split(plan.split_name, keys)
    return Header(method.name, method.options, split, plan.seed, plan.metrics, plan.environment)


def _check_failures(record: Path, done: Sequence[Row], plan: Plan) -> None:
    failed = [row.key for row in done if row.error is not None]
    if failed and not plan.keep_going:
        raise InputError(
            f"{record} holds {len(failed)} failed frames, the first is {failed[0]}: "
            "mend the cause and remove the record, or go on with --keep-going"
        )


def _start(method: Method, split: Split, i: int, plan: Plan, measurer: Measurer) -> _Pending:
    """Complete frame i and hand its scene over to be measured."""
    key = split.keys[i]
    environment = plan.environment
    row: dict[str, Any] = {
        "key": key,
        "method": method.name,
        "seed": frame_seed(plan.seed, key),
        "commit": environment.get("commit"),
        "hardware": hardware(method.device, environment),
        "versions": ", ".join(f"{name} {environment.get(name)}" for name in ("densescan", "torch", "numpy")),
    }
    try:
        case = split[i]
        scene = method.complete(case, row["seed"])
    except FAILURES as error:
        failed: Future[Scores] = Future()
        failed.set_exception(error)
        return _Pending(row, failed)
    row |= {"points": len(scene.points), "truth_points": len(case.truth)}
    if scene.seconds:
        row["seconds"] = {**scene.seconds, "total": sum(scene.seconds.values())}
    return _Pending(row, measurer.submit(scene.points, case.truth, plan.metrics))


def _finished(pending: _Pending, plan: Plan) -> Row:
    """The row of a frame, once its scores are known."""
    row = pending.row
    try:
        return Row(**row, scores=pending.scores.result())
    except FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if plan.keep_going:
            return Row(**row, error=_without_folders(reason))
        message = f"{row['method']} failed on frame {row['key']}: {reason}"
        raise (InputError if isinstance(error, InputError) else type(error))(message) from error


def _without_folders(text: str) -> str:
    """Absolute paths shortened to their last part: a record says nothing about the machine's folders."""
    return re.sub(r"(?<![\w.])/(?:[^\s/]+/)+", "", text)
