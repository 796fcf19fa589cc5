"""The record of a run beside its checkpoints: config.json, env.json and metrics.jsonl."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from densescan.errors import InputError
from densescan.files import atomic_write


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises: InputError: a file is in the way, or no permission.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot make the folder {folder}: {reason}; name another folder") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; whole or not at all.

    Raises: InputError: the path cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def check_same_stage(path: Path, stage: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started with another stage; its loop's settings may change.

    Values that only one of both has are passed over: they came or went with a version of the code.

    Args: path: config.json of the run; a missing one is accepted. stage: configuration of the stage now.
    Raises: InputError: a value differs, or the file is no configuration.
    """
    if not path.is_file():
        return
    try:
        before = _flat(json.loads(path.read_text())["stage"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the configuration of a run: start in another folder") from error
    now = _flat(json.loads(json.dumps(stage)))
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise InputError(
                f"{path}: the run was started with {name} = {before[name]}, got {now[name]}: "
                "resume with the same, or start in another folder"
            )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def environment() -> dict[str, str | int | None]:
    """What a result may depend on besides its configuration: versions, commit, processor, threads."""
    return {
        "densescan": _version("densescan"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "scipy": _version("scipy"),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return None


def _commit() -> str | None:
    """The checked-out commit, with `-dirty` where tracked files differ from it; None for an installed package.

    A source tree that was copied without its repository is told its commit by the variable DENSESCAN_COMMIT.
    """
    if (told := os.environ.get("DENSESCAN_COMMIT")) is not None:
        return told
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # not a file of the repository around it, if there is any
    return _git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_model() -> str:
    """The processor's name and, where Linux tells them, its family and model: some names are those of a whole series,
    whose members differ twofold in speed."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    numbers = [f"{key.removeprefix('cpu ')} {told[key]}" for key in ("cpu family", "model") if key in told]
    return told["model name"] + (f" ({', '.join(numbers)})" if numbers else "")


def append_metrics(path: Path, row: dict[str, float | int]) -> None:
    """Add a row to a JSON lines file.

    Raises: InputError: the path cannot be written.
    """
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}; free some space, then resume") from error


def forget_metrics_after(path: Path, step: int) -> None:
    """Drop the rows of steps that no checkpoint holds, and a last row cut off by a kill: they are run again."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text().splitlines() if 0 < _step_of(line) <= step]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> int:
    """The step of a row, 0 for one that is cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0
