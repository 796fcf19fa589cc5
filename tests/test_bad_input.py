"""Every mistake a user can make, through the command line: one line that names it, status 2, no file left."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from densescan.cli import main
from densescan.completion import CompletionConfig
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.weights.folder import ModelConfig, build, save_model

FORM = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local")
CONFIG = CompletionConfig(scan_points=100, repeat=2, steps=1, sampler="consistent")
RECORD = 16


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return build(ModelConfig(FORM, FORM))


@pytest.fixture(scope="module")
def model(networks, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, networks, CONFIG, "# Random\n")
    return folder


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """Whatever the speed of the machine, stderr holds nothing but complaints."""
    monkeypatch.setattr("densescan.cli.console.LINE_SECONDS", np.inf)


@pytest.fixture
def place(tmp_path, model, monkeypatch) -> Path:
    """A working folder with a scan and a model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    points = rng.uniform((5, -8, -2, 0), (15, 8, 1, 1), (200, 4)).astype("<f4")
    Path("scan.bin").write_bytes(points.tobytes())
    shutil.copytree(model, "model")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(place, capsys):
    """Run a command that must fail: its one line, after a check that it changed no file."""

    def refused(*args: str) -> str:
        before = contents(place)
        status = main(args)
        out, err = capsys.readouterr()
        assert status == 2
        assert contents(place) == before, "a command that fails leaves everything as it was"
        assert out == ""
        assert err.startswith("densescan: ")
        assert err.count("\n") == 1, "one line"
        return err

    return refused


def complete(scan: str = "scan.bin", *more: str) -> tuple[str, ...]:
    return ("complete", scan, "-o", "scene.ply", "--model", "model", *more)


def test_the_good_case_is_good(place, capsys):
    assert main(complete()) == 0
    assert Path("scene.ply").is_file()
    assert capsys.readouterr().err == ""


# Scans


def scan_bytes(kind: str) -> bytes:
    whole = Path("scan.bin").read_bytes()
    values = np.frombuffer(whole, "<f4").reshape(-1, 4).copy()
    far = values.copy()
    far[:, :3] *= 100
    return {
        "empty": b"",
        "cut off": whole[:-3],
        "all NaN": np.full_like(values, np.nan).tobytes(),
        "all infinite": np.full_like(values, np.inf).tobytes(),
        "none in range": (far.clip(-9000, 9000)).tobytes(),
        "one point": whole[:RECORD],
        "other record": np.zeros((3, 5), "<f4").tobytes(),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "bad.bin: the file is empty; copy or download it again"),
        ("cut off", "expected 16 bytes a point, got 3197 bytes, which is no multiple; the file is cut off"),
        ("all NaN", "none of its 200 points is finite"),
        ("all infinite", "none of its 200 points is finite"),
        ("none in range", "bad.bin: 0 of 200 points lie between 3.5 and 50 m"),
        (
            "one point",
            "bad.bin: 1 of 1 points lie between 3.5 and 50 m from the sensor, at least 2 are needed",
        ),
        ("other record", "a nuScenes scan should end in .pcd.bin"),
    ],
)
def test_bad_scans(refused, place, kind, message):
    Path("bad.bin").write_bytes(scan_bytes(kind))
    error = refused(*complete("bad.bin"))
    assert "bad.bin" in error
    assert message in error


def test_some_points_that_are_not_finite_are_dropped_and_counted(place, capsys):
    values = np.frombuffer(Path("scan.bin").read_bytes(), "<f4").reshape(-1, 4)
    bad = np.array([[np.nan, 0, 0, 0], [0, np.inf, 0, 0], [0, 0, -np.inf, 0]], "<f4")
    Path("bad.bin").write_bytes(np.concatenate([bad, values]).tobytes())
    assert main(complete("bad.bin")) == 0
    err = capsys.readouterr().err
    assert err.startswith("densescan: warning: bad.bin: dropped 3 of 203 points that are not finite")
    assert err.count("\n") == 1
    assert main(complete("scan.bin", "-o", "clean.ply")) == 0
    assert Path("scene.ply").read_bytes() == Path("clean.ply").read_bytes()


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ("nothing.bin", "cannot read nothing.bin: there is no such file; check the path"),
        ("model.bin", "cannot read model.bin: unknown file ending"),
        ("empty", "empty holds no scan: expected files ending in .bin"),
    ],
)
def test_paths_that_are_no_scan(refused, place, scan, message):
    Path("empty").mkdir()
    if scan == "model.bin":
        Path("model.las").write_bytes(b"LASF")
        scan, message = "model.las", message.replace("model.bin", "model.las")
    assert message in refused(*complete(scan))


def test_a_directory_with_the_name_of_a_scan(refused, place):
    Path("folder.bin").mkdir()
    assert "folder.bin holds no scan" in refused(*complete("folder.bin"))
    assert "no model folder.bin" in refused("info", "folder.bin")


# Outputs


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("-o", "scene.obj", "unknown file ending; name a file ending in .ply"),
        ("-o", "model", "unknown file ending"),
        ("-o", "folder.ply", "it is a directory; name a file in it"),
        ("-o", "missing/scene.ply", "missing does not exist; create it first"),
        ("-o", "scan.bin", "must be different files"),
        ("--coarse", "scene.ply", "must be different files"),
        ("--coarse", "coarse.txt", "unknown file ending"),
        ("--picture", "picture.jpg", "unknown file ending; name a file ending in .png"),
        ("--picture", "missing/picture.png", "missing does not exist; create it first"),
    ],
)
def test_bad_outputs_are_refused_before_anything_is_computed(
    refused, place, monkeypatch, option, path, message
):
    monkeypatch.setattr("densescan.cli.complete.load", lambda *_: pytest.fail("the model was loaded"))
    Path("folder.ply").mkdir()
    error = refused(*complete("scan.bin", option, path))
    assert message in error
    assert "--" in option or path in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_protected_folder(refused, place):
    Path("protected").mkdir(mode=0o500)
    assert "no permission in" in refused(*complete("scan.bin", "-o", "protected/scene.ply"))


def test_a_device_in_place_of_a_file(refused, place):
    Path("null.ply").symlink_to(os.devnull)
    assert "null.ply: it is not a regular file" in refused(*complete("scan.bin", "-o", "null.ply"))


# Numbers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "0"), "steps must be a whole number of at least 1, got 0"),
        (("--steps", "-3"), "steps must be"),
        (("--steps", "1001"), "steps must be at most 1000, got 1001"),
        (("--scan-points", "-100"), "scan_points must be"),
        (("--repeat", "0"), "repeat must be"),
        (
            ("--min-range", "20", "--max-range", "10"),
            "expected 0 <= min_range < max_range, got 20.0 to 10.0 m",
        ),
        (("--min-range", "nan"), "min_range must be a finite number"),
        (("--max-range", "inf"), "max_range must be a finite number"),
        (("--guidance-scale", "nan"), "guidance_scale must be a finite number, got nan"),
        (("--lam", "nan"), "lam must be a finite number"),
        (("--lam", "-1"), "lam must be"),
        (("--eta", "2"), "eta must lie in [0, 1]"),
        (("--voxel-size", "0"), "voxel_size must be positive"),
        (("--voxel-size", "nan"), "voxel_size must be positive"),
        (("--voxel-size", "1e-7"), "voxel"),
        (("--seed", "-1"), "seed must lie in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_numbers(refused, options, message):
    assert message in refused(*complete("scan.bin", *options))


@pytest.mark.parametrize(
    "options",
    [("--steps", "many"), ("--steps", "2.5"), ("--sampler", "best"), ("--device", "tpu"), ("--step", "4")],
)
def test_words_that_are_no_value_are_explained_by_the_parser(place, capsys, options):
    before = contents(place)
    assert main(complete("scan.bin", *options)) == 2
    out, err = capsys.readouterr()
    assert options[1] in err or options[0] in err
    assert out == ""
    assert "Traceback" not in err
    assert contents(place) == before


def test_a_device_that_is_not_there(refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "use --device cpu" in refused(*complete("scan.bin", "--device", "cuda"))


# Weights


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_no_weights_run_code(refused, place):
    bomb = pickle.dumps({"state_dict": Bomb(place / "executed")}, protocol=2)
    Path("model/model.safetensors").write_bytes(bomb)
    Path("evil.ckpt").write_bytes(bomb)
    torch.save({"state_dict": {}, "callbacks": Bomb(place / "executed")}, "evil2.ckpt")
    assert "model/model.safetensors cannot be read as safetensors" in refused(*complete())
    assert "evil.ckpt cannot be read" in refused("weights", "convert", "evil.ckpt", "-o", "converted")
    assert "evil2.ckpt cannot be read" in refused("weights", "convert", "evil2.ckpt", "-o", "converted")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.last.0.bias"), "missing model.last.0.bias"),
        (lambda t: t.update(surplus=torch.zeros(1)), "unexpected surplus"),
        (lambda t: t.update({"model.last.2.bias": torch.zeros(5)}), "has shape (5,), expected (3,)"),
    ],
)
def test_wrong_tensors(refused, place, change, message):
    tensors = load_file("model/model.safetensors")
    change(tensors)
    save_file(tensors, "model/model.safetensors")
    error = refused(*complete())
    assert "model/model.safetensors does not hold the weights of this architecture" in error
    assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "model/config.json is no model configuration"),
        ("[]", "model/config.json is no model configuration"),
        ('{"net": null, "refiner": null, "completion": {"stride": 2}}', "unknown fields stride"),
        ('{"net": null, "refiner": null, "completion": {"steps": 0}}', "steps must be"),
    ],
)
def test_corrupt_configurations(refused, place, content, message):
    Path("model/config.json").write_text(content)
    error = refused(*complete())
    assert "model/config.json" in error
    assert message in error


def test_models_that_are_not_there_or_not_whole(refused, place, networks):
    assert "no model nowhere" in refused(*complete("scan.bin", "--model", "nowhere"))
    assert "scan.bin is a file, expected a model folder" in refused(
        *complete("scan.bin", "--model", "scan.bin")
    )
    save_model("refiner", Networks(refiner=networks.refiner), CONFIG, "")
    assert "hold no encoder" in refused(*complete("scan.bin", "--model", "refiner"))
    Path("model/model.safetensors").unlink()
    assert "model/model.safetensors cannot be read" in refused(*complete())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("weights", "convert", "-o", "converted"), "expected a checkpoint to convert, got none"),
        (("weights", "convert", "nothing.ckpt", "-o", "converted"), "nothing.ckpt is missing"),
        (("weights", "convert", "scan.bin", "-o", "converted"), "scan.bin cannot be read as a checkpoint"),
        (("weights", "convert", "scan.bin", "-o", "scan.bin/x"), "scan.bin is a file; name another folder"),
        (("weights", "show", "nowhere"), "no model nowhere"),
        (("weights", "merge", "-o", "merged"), "expected a model to merge, got none"),
        (("weights", "merge", "model", "model", "-o", "merged"), "holds a second encoder"),
        (("weights", "merge", "model", "-o", "merged", "--completion", "steps=0"), "steps must be"),
        (("weights", "merge", "model", "-o", "merged", "--completion", "step=1"), "fields are scan_points"),
        (
            ("weights", "merge", "model", "-o", "merged", "--completion", "steps"),
            "expected --completion FIELD=VALUE",
        ),
        (("data", "simulate", "d", "--seeds", "5:5"), "expected --seeds as one number or FIRST:END"),
        (("data", "simulate", "d", "--seeds", "five"), "expected --seeds as one number or FIRST:END"),
        (("data", "simulate", "d", "--workers", "0"), "workers must be at least 1"),
        (("data", "simulate", "d", "--seeds", "5", "--frames", "0"), "expected at least one frame"),
        (("data", "simulate", "scan.bin"), "scan.bin is a file; name another folder"),
        (
            ("train", "refiner", "--data", "nowhere", "--out", "r"),
            "make them with `densescan data prepare` or `densescan data simulate`",
        ),
        (
            ("train", "teacher", "--data", "d", "--out", "r", "--recipe", "best"),
            "unknown recipe best of teacher: known are small",
        ),
        (("train", "teacher", "--data", "d", "--out", "r", "--lr", "nan"), "lr"),
        (("train", "teacher", "--data", "d", "--out", "r", "--net.width", "0.001"), "width 0.001"),
        (("info", "nothing.bin"), "there is no such file"),
        (("frobnicate",), "unknown command `frobnicate`: known are complete"),
        (("weights", "frobnicate"), "unknown command `weights frobnicate`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_in_the_other_commands(refused, args, message):
    assert message in refused(*args)


# Through a process of its own


def run(*args: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("densescan")
    return subprocess.run([program, *args], capture_output=True, text=True, timeout=600, check=False)


def test_the_process_ends_with_status_two_and_one_line(place):
    config = json.loads(Path("model/config.json").read_text())
    config["completion"]["steps"] = 2.5
    Path("model/config.json").write_text(json.dumps(config))
    done = run(*complete())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("densescan: model/config.json is no model configuration")
    assert "steps must be a whole number of at least 1, got 2.5" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("scene.ply").exists()
