"""`densescan complete`: scans to scenes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from densescan.cli.console import complain, progress, rows, say
from densescan.cli.options import (
    Command,
    Device,
    Inputs,
    Output,
    check_folder,
    choose_device,
    make_folder,
    option_value,
    with_defaults,
)
from densescan.completion import Completion, CompletionConfig
from densescan.data.io import check_writable, read_scan, write_points
from densescan.errors import InputError
from densescan.files import check_writable as check_file
from densescan.viewer.render import render_before_after
from densescan.weights.folder import DEFAULT_MODEL, bundled_names, load, model_folder, read_config

SCAN_ENDINGS = (".bin", ".ply", ".pcd", ".npy", ".npz")
"""What is taken for a scan in a folder; .pcd.bin ends in .bin."""


@dataclass(frozen=True)
class Job:
    """One scan and the files made of it."""

    scan: Path
    scene: Path
    coarse: Path | None
    picture: Path | None


@dataclass(frozen=True)
class Complete(Command):
    """Complete sparse scans to dense scenes.

    The parameters of sampling default to those that the model was saved with.

    Examples:
      densescan complete 000123.bin -o scene.ply
      densescan complete 000123.bin -o scene.ply --steps 4 --seed 1 --picture before_after.png
      densescan complete sequences/08/velodyne -o scenes/ --model mymodel/ --device cuda
    """

    scans: Annotated[Inputs, tyro.conf.arg(metavar="SCAN [SCAN ...]", help_behavior_hint="(required)")]
    """Scans (.bin, .pcd.bin, .ply, .pcd, .npy, .npz) or folders of them."""
    output: Output
    """The scene (.ply, .pcd, .bin, .npy); of several scans or a folder: a folder for their scenes."""
    model: str = DEFAULT_MODEL
    """A bundled model's name (see `densescan weights list`) or a model folder."""
    device: Device = "auto"
    """Where to compute; auto: on the GPU if there is one."""
    seed: int = 0
    """Of the noise: the same seed gives the same scene."""
    picture: Path | None = None
    """Draw the scan beside its scene as a .png; of several scans: a folder for the pictures."""
    coarse: Path | None = None
    """Write the scene before refinement as well; of several scans: a folder."""
    completion: Annotated[CompletionConfig, tyro.conf.arg(name="")] = field(default_factory=CompletionConfig)

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Complete]":
        """This command with the completion defaults of the model that the arguments name."""
        named = option_value(args, "--model")
        if named is None and DEFAULT_MODEL not in bundled_names():
            return cls
        config = read_config(model_folder(named or DEFAULT_MODEL))
        return with_defaults(cls, completion=config.completion)

    def run(self) -> None:
        """Complete every scan; of several, go on after one that fails.

        Raises: InputError: a bad option or output path, or a scan that cannot be completed.
        """
        jobs = self._jobs()
        completer = load(self.model, choose_device(self.device))
        options = {"seed": self.seed, **asdict(self.completion)}
        if len(jobs) == 1:
            scan = read_scan(jobs[0].scan)
            with progress(jobs[0].scan.name, self.completion.steps) as update:
                scene = completer(scan, on_step=lambda done, _: update(done, ""), **options)
            return _write(jobs[0], scene)
        failed = 0
        with progress("scans", len(jobs)) as update:
            scenes = completer.stream([job.scan for job in jobs], **options)
            for done, (job, found) in enumerate(zip(jobs, scenes, strict=True), 1):
                try:
                    if isinstance(found, InputError):
                        raise found
                    _write(job, found)
                except InputError as error:
                    complain(str(error))
                    failed += 1
                update(done, job.scan.name)
        if failed:
            raise InputError(f"{failed} of {len(jobs)} scans were not completed, see above")

    def _jobs(self) -> list[Job]:
        scans = [scan for path in self.scans for scan in _scans_in(path)]
        if not scans:
            raise InputError("expected a scan to complete, got none: name a file such as 000123.bin")
        if len(self.scans) == 1 and not self.scans[0].is_dir():
            job = Job(scans[0], self.output, self.coarse, self.picture)
            _check(job)
            return [job]
        return self._jobs_of_many(scans)

    def _jobs_of_many(self, scans: list[Path]) -> list[Job]:
        names = [_stem(scan) for scan in scans]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"several scans are named {twice[0]}: complete them into different folders")
        folders = [folder for folder in (self.output, self.coarse, self.picture) if folder is not None]
        for folder in folders:
            if folder.suffix and not folder.is_dir():
                raise InputError(f"several scans need a folder for their results, got {folder}")
            check_folder(folder)
        jobs = [
            Job(
                scan,
                self.output / f"{name}.ply",
                self.coarse and self.coarse / f"{name}.ply",
                self.picture and self.picture / f"{name}.png",
            )
            for scan, name in zip(scans, names, strict=True)
        ]
        if all(folder.is_dir() for folder in folders):
            for job in jobs:
                _check(job)
        return jobs


def _scans_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    scans = sorted(p for p in path.iterdir() if p.name.lower().endswith(SCAN_ENDINGS) and p.is_file())
    if not scans:
        raise InputError(f"{path} holds no scan: expected files ending in {', '.join(SCAN_ENDINGS)}")
    return scans


def _stem(scan: Path) -> str:
    return scan.name.removesuffix(scan.suffix).removesuffix(".pcd")


def _check(job: Job) -> None:
    """Refuse outputs that could not be written, or that would replace the scan or each other."""
    scenes = [path for path in (job.scene, job.coarse) if path is not None]
    for path in scenes:
        check_writable(path)
    pictures = [job.picture] if job.picture is not None else []
    for path in pictures:
        check_file(path, (".png",))
    outputs = scenes + pictures
    places = [path.resolve() for path in (job.scan, *outputs)]
    if len(set(places)) < len(places):
        raise InputError(f"scan, scene, coarse scene and picture of {job.scan} must be different files")


def _write(job: Job, scene: Completion) -> None:
    for path in filter(None, (job.scene, job.coarse, job.picture)):
        make_folder(path.parent)
    scene.save(job.scene)
    if job.coarse is not None:
        write_points(job.coarse, scene.coarse)
    if job.picture is not None:
        render_before_after(scene.scan.points, scene.points, job.picture, title=job.scan.name)
    say(_report(job, scene))


def _report(job: Job, scene: Completion) -> str:
    seconds = "  ".join(f"{stage} {value:.2f}" for stage, value in scene.seconds.items())
    lines = {
        "scan": f"{job.scan}: {len(scene.scan.points):,} points",
        "scene": f"{job.scene}: {len(scene.points):,} points",
    }
    if job.coarse is not None:
        lines["coarse"] = f"{job.coarse}: {len(scene.coarse):,} points"
    if job.picture is not None:
        lines["picture"] = str(job.picture)
    return rows({**lines, "seconds": f"{seconds}  total {sum(scene.seconds.values()):.2f}"})
