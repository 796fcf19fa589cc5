"""What can be scored: models, finished scenes, and the trivial rivals that any model must beat."""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from densescan.completer import Completer
from densescan.completion import Completion, CompletionConfig
from densescan.data.io import read_scan
from densescan.data.scan import Scan
from densescan.data.split import Case
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.weights.folder import load, model_folder, read_config, tensor_files

MIN_RANGE, MAX_RANGE = 3.5, 50.0
"""The bare and the jittered scan keep points between these distances from the sensor [m], as the releases do."""
JITTER_POINTS, JITTER_COPIES = 18_000, 10
"""The jittered scan is reduced to so many points, each repeated so often: as many as the released scenes have."""
SCENE_ENDINGS = (".ply", ".npy", ".npz", ".pcd.bin", ".bin", ".pcd")


@dataclass(frozen=True)
class Scene:
    """What a method makes of a case."""

    points: Float32[np.ndarray, "L 3"]
    """The scene [m], sensor frame."""
    seconds: dict[str, float]
    """Wall clock of each stage, reading excluded; empty for a scene that was read from a file."""


@dataclass(frozen=True)
class Method:
    """Something that makes a scene of a scan."""

    name: str
    """In tables and, spelled for file names, of its record."""
    options: dict[str, Any]
    """All that its scenes depend on besides scan and seed; goes into the record."""
    complete: Callable[[Case, int], Scene]
    """complete(case, seed). Raises: InputError: no scene of this case."""
    device: str = "cpu"
    """Where it computes."""
    sampler: object = None
    """What samples its scenes; methods of the same one are quickest side by side, see `together`. None: its own."""

    @property
    def file_name(self) -> str:
        """The name, spelled so that any file system takes it."""
        return re.sub(r"[^\w.]+", "-", self.name.replace("=", ""))


def bare_scan() -> Method:
    """The scan itself, points between 3.5 and 50 m."""

    def complete(case: Case, seed: int) -> Scene:
        clock = _Clock()
        points = _cropped(case)
        return Scene(points.numpy(), clock.lap("crop"))

    return Method("bare", {"kind": "bare"}, complete)


def jittered_scan(sigma: float, copies: int = JITTER_COPIES) -> Method:
    """The scan reduced to 18,000 points by farthest point sampling, repeated, each copy moved by sigma * N(0, 1) [m].

    Raises: InputError: a negative sigma or no copies.
    """
    if not 0 <= sigma < np.inf or copies < 1:
        raise InputError(
            f"expected jitter:SIGMA[:COPIES], sigma in metres, got {sigma} m and {copies} copies"
        )

    def complete(case: Case, seed: int) -> Scene:
        clock = _Clock()
        points = _cropped(case)
        clock.lap("crop")
        reduced = points[farthest_point_sampling(points, JITTER_POINTS)].repeat(copies, 1)
        clock.lap("reduce")
        eps = torch.randn(reduced.shape, generator=torch.Generator().manual_seed(seed))
        return Scene((reduced + sigma * eps).numpy(), clock.lap("jitter"))

    name = f"jitter:{sigma:g}" + (f":{copies}" if copies != JITTER_COPIES else "")
    return Method(
        name, {"kind": "jitter", "sigma": sigma, "copies": copies, "points": JITTER_POINTS}, complete
    )


def refined_jitter(name_or_path: str | Path, sigma: float, device: str = "cpu") -> Method:
    """The jittered scan, ten copies, after a model's refiner: what the model is worth without its diffusion.

    Args: name_or_path: a bundled model's name or a model folder. sigma: as of `jittered_scan`.
    Raises: InputError: no such model, or a negative sigma.
    """
    jittered, folder = jittered_scan(sigma), model_folder(name_or_path)
    config, digest = read_config(folder).completion, _digest(folder)
    sampler = _sampler(folder, digest, config, device)
    types = {"bfloat16": config.bfloat16, "int8": config.int8}

    def complete(case: Case, seed: int) -> Scene:
        scene, clock = jittered.complete(case, seed), _Clock()
        points = sampler.completer.refine(scene.points, **types)
        return Scene(points, scene.seconds | clock.lap("refine"))

    facts = jittered.options | {"kind": "refined", "weights": digest} | types
    return Method(f"refined:{_short(folder)}:{sigma:g}", facts, complete, device)


def finished_scenes(folder: Path) -> Method:
    """Scenes that were completed before: FOLDER/SEQUENCE/FRAME.* or FOLDER/FRAME.*, any format of `read_scan`.

    Raises: InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"expected scenes:FOLDER with completed scenes, got {folder}, which is no folder")
    taken: dict[Path, str] = {}

    def complete(case: Case, seed: int) -> Scene:
        path = _scene_file(folder, case.key)
        if taken.setdefault(path, case.key) != case.key:
            raise InputError(
                f"{path} would count for {taken[path]} and {case.key}: put scenes in one folder a sequence"
            )
        return Scene(read_scan(path).points, {})

    name = folder.resolve().name
    return Method(f"scenes:{name}", {"kind": "scenes", "folder": name}, complete)


def model(name_or_path: str | Path, device: str = "cpu", **changes: Any) -> Method:
    """A model's scenes; with refine=False those before refinement, called coarse.

    Args: name_or_path: a bundled model's name or a model folder. changes: fields of `CompletionConfig`.
    Raises: InputError: no such model, or an unknown field or value.
    """
    folder = model_folder(name_or_path)
    config = read_config(folder).completion
    unknown = [name for name in changes if name not in CompletionConfig.__dataclass_fields__]
    if unknown:
        known = ", ".join(CompletionConfig.__dataclass_fields__)
        raise InputError(f"{name_or_path}: unknown option {unknown[0]}; known are coarse, {known}")
    config = replace(config, **changes)
    shown = [f"{key}={value}" for key, value in changes.items() if key != "refine"]
    name = ":".join([_short(folder), *shown, *([] if config.refine else ["coarse"])])
    digest = _digest(folder)
    facts = {"kind": "model", "weights": digest, "completion": asdict(config)}
    sampler = _sampler(folder, digest, replace(config, refine=True), device)

    def complete(case: Case, seed: int) -> Scene:
        scene = sampler(case, seed, config.refine)
        if config.refine:
            return Scene(scene.points, scene.seconds)
        return Scene(scene.coarse, {**scene.seconds, "refine": 0.0})

    return Method(name, facts, complete, device, sampler)


def together(methods: Sequence[Method]) -> list[list[Method]]:
    """The methods in groups that sample alike, refined scenes before coarse ones, which are there by then."""
    groups: dict[object, list[Method]] = {}
    for method in methods:
        groups.setdefault(method.sampler or method.name, []).append(method)
    return [sorted(group, key=_is_coarse) for group in groups.values()]


def _is_coarse(method: Method) -> bool:
    return not method.options.get("completion", {}).get("refine", True)


class _Sampler:
    """Completes with a model that is loaded on first use, and remembers its last scene: before refinement it is the
    same as after, and need not be sampled twice."""

    def __init__(self, folder: Path, config: CompletionConfig, device: str) -> None:
        self.folder, self.config, self.device = folder, config, device
        self._last: tuple[Scan, Completion] | None = None

    @cached_property
    def completer(self) -> Completer:
        """The model, loaded."""
        return load(self.folder, self.device)

    def __call__(self, case: Case, seed: int, refine: bool) -> Completion:
        if self._last is not None and self._is_of(case, seed) and (not refine or self._last[1].config.refine):
            return self._last[1]
        config = replace(self.config, refine=refine)
        scene = self.completer(case.scan, seed=seed, **asdict(config))
        self._last = case.scan, scene
        return scene

    def _is_of(self, case: Case, seed: int) -> bool:
        assert self._last is not None
        scan, scene = self._last
        return scene.seed == seed and np.array_equal(scan.points, case.scan.points)


@cache
def _sampler(folder: Path, digest: str, config: CompletionConfig, device: str) -> _Sampler:
    """One for all methods that sample alike. digest: of the weights that the folder holds now."""
    return _Sampler(folder, config, device)


class _Clock:
    """Seconds between calls."""

    def __init__(self) -> None:
        self.began, self.seconds = time.perf_counter(), dict[str, float]()

    def lap(self, stage: str) -> dict[str, float]:
        """Note the seconds since the last call under a name; returns all noted."""
        now = time.perf_counter()
        self.seconds[stage], self.began = now - self.began, now
        return self.seconds


def _cropped(case: Case) -> Tensor:
    points = torch.from_numpy(case.scan.points)
    points = points[within_range(points, MIN_RANGE, MAX_RANGE)]
    if not len(points):
        raise InputError(
            f"no point of the scan lies between {MIN_RANGE} and {MAX_RANGE} m: check frame and unit"
        )
    return points


def _scene_file(folder: Path, key: str) -> Path:
    """The one file that holds the scene of a frame."""
    for stem in (folder / key, folder / key.rpartition("/")[2]):
        found = [path for ending in SCENE_ENDINGS if (path := stem.with_name(stem.name + ending)).is_file()]
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1].name} are both there: keep one scene a frame")
        if found:
            return found[0]
    raise InputError(
        f"no scene of frame {key} in {folder}: expected {folder / key}.ply or another point format"
    )


def _short(folder: Path) -> str:
    """A model's name: its folder's, or the run's where that is merely called `model`."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _digest(folder: Path) -> str:
    """Tells one set of weights from another."""
    found = hashlib.sha256()
    for path in tensor_files(folder):
        try:
            found.update(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; get the model again") from error
    return found.hexdigest()[:16]
