"""The command line: what each command makes, prints and keeps to itself; and the demonstration."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from densescan import demo
from densescan.cli import app, console, data, main
from densescan.cli.app import COMMANDS
from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.data.io import read_scan
from densescan.data.simulator import SimulatedFrame, write_sequence
from densescan.geometry.neighbours import nearest_distances
from densescan.nets.minkunet import NetConfig
from densescan.weights import folder as folder_module
from densescan.weights.folder import ModelConfig, build, load, read_model, save_model

FORM = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local")
CONFIG = CompletionConfig(scan_points=100, repeat=2, steps=2, sampler="consistent")
SMALL_CROPS = (
    *("--crops.scan-points", "60", "--crops.truth-points", "100", "--crops.min-reduced", "100"),
    *("--crops.max-reduced", "200", "--net.width", "0.125", "--net.voxel-size", "0.4"),
    *("--workers", "0", "--no-bfloat16"),
)


def street(seed: int, count: int = 300) -> np.ndarray:
    """Points (N, 3) [m], float32: a road and a wall 4 to 15 m from the sensor."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((4, -8, -1.8), (13, 8, -1.7), (count, 3))
    points[::3, 1], points[::3, 2] = 8, rng.uniform(-1.7, 2, len(points[::3]))
    return points.astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, build(ModelConfig(FORM, FORM)), CONFIG, "# A tiny model\n\nIts weights are random.\n")
    return folder


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """Whatever the speed of the machine, stderr holds nothing but complaints."""
    monkeypatch.setattr(console, "LINE_SECONDS", np.inf)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with two scans."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.bin", "b.bin")):
        np.column_stack([street(seed), np.full(300, 0.5)]).astype("<f4").tofile(name)
    return tmp_path


@pytest.fixture
def bundled(model, monkeypatch) -> str:
    """The tiny model under the name of the default one."""
    monkeypatch.setattr(folder_module, "bundled_names", lambda: ["small"])
    monkeypatch.setattr("densescan.cli.complete.bundled_names", lambda: ["small"])
    monkeypatch.setattr("densescan.cli.weights.bundled_names", lambda: ["small"])
    monkeypatch.setattr("densescan.cli.info.bundled_names", lambda: ["small"])
    (model.parent / "small").exists() or (model.parent / "small").symlink_to(model)
    monkeypatch.setattr(folder_module, "BUNDLED", model.parent)
    return "small"


@pytest.fixture
def shown(capsys):
    """Run a command that must succeed, and return what it wrote to stdout."""

    def shown(*args: str) -> str:
        status = main(args)
        out, err = capsys.readouterr()
        assert status == 0, err
        assert err == ""
        return out

    return shown


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_a_line_for_each_option(shown, command):
    text = shown(*command.split(), "--help")
    assert f"usage: densescan {command}" in text
    assert f"\n  densescan {command}" in text, "an example"
    lines = [line.strip("│| ") for line in text.splitlines()]
    starts = [i for i, line in enumerate(lines) if re.match("--?[a-z]", line)]
    assert starts
    for start, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        option = " ".join(lines[start:following])
        words = re.sub(r"^-.*?(  |[A-Z}] )|\(default:.*?\)|\(required\)", "", option)
        assert re.search(r"[a-z]{2,}.*[a-z]{2,}", words), f"no help for {option}"


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_help_names_every_command(shown, args):
    text = shown(*args)
    assert all(re.search(rf"^  {command}  +\S", text, flags=re.MULTILINE) for command in COMMANDS)


def test_help_on_a_group_names_its_commands_alone(shown):
    text = shown("weights", "--help")
    assert text == shown("weights")
    assert "weights convert" in text
    assert "train teacher" not in text


def test_version(shown):
    assert re.fullmatch(r"densescan \d+\.\d+\.\d+\n", shown("--version"))


def test_the_installed_program_is_this_one():
    program = Path(sys.executable).with_name("densescan")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.startswith("densescan ")


# complete


def test_complete_writes_scene_coarse_scene_and_picture_and_says_so(place, model, shown):
    out = shown(
        *("complete", "a.bin", "-o", "scene.ply", "--model", str(model)),
        *("--coarse", "coarse.npy", "--picture", "picture.png"),
    )
    expected = load(model)(read_scan("a.bin"))
    assert np.array_equal(read_scan("scene.ply").points, expected.points)
    assert np.array_equal(read_scan("coarse.npy").points, expected.coarse)
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["scan"] == "a.bin: 300 points"
    assert lines["scene"] == f"scene.ply: {len(expected.points):,} points"
    assert lines["coarse"] == f"coarse.npy: {len(expected.coarse):,} points"
    assert lines["picture"] == "picture.png"
    seconds = dict(re.findall(r"(\w+) ([\d.]+)", lines["seconds"]))
    assert list(seconds) == [*expected.seconds, "total"]
    total = float(seconds.pop("total"))
    assert total == pytest.approx(sum(map(float, seconds.values())), abs=0.04)


def test_every_parameter_of_a_completion_has_an_option(place, model, shown, monkeypatch):
    given = CompletionConfig(
        90, 3, 1, 2.0, "ddim", 0.5, "diffusers-new", 0.7, 4.5, 40.0, 0.3, False, True, True
    )
    assert all(getattr(given, f.name) != getattr(CONFIG, f.name) for f in fields(CompletionConfig))
    monkeypatch.setattr("densescan.completion.MOST_FAR", 1.0)  # random weights would be warned of
    options = []
    for field in fields(CompletionConfig):
        name, value = field.name.replace("_", "-"), getattr(given, field.name)
        flag = {True: [f"--{name}"], False: [f"--no-{name}"]}.get(value) if isinstance(value, bool) else None
        options += flag or [f"--{name}", str(value)]
    seen = []
    original = Completer.__call__
    monkeypatch.setattr(
        Completer, "__call__", lambda self, scan, **given: seen.append(given) or original(self, scan, **given)
    )
    shown("complete", "a.bin", "-o", "scene.ply", "--model", str(model), "--seed", "5", *options)
    assert seen[0].pop("seed") == 5
    seen[0].pop("on_step")
    assert CompletionConfig(**seen[0]) == given


def test_parameters_default_to_those_of_the_model(place, model, shown):
    text = shown("complete", "--help", f"--model={model}")
    assert re.search(r"--scan-points.*?\(default:[│\s]*100\)", text, flags=re.DOTALL)
    shown(
        "complete", "a.bin", "-o", "one.npy", "--model", str(model), "--steps", "2", "--sampler", "consistent"
    )
    shown("complete", "a.bin", "-o", "two.npy", "--model", str(model))
    assert Path("one.npy").read_bytes() == Path("two.npy").read_bytes()


def test_the_default_model_is_the_bundled_one(place, bundled, shown):
    shown("complete", "a.bin", "-o", "scene.npy")
    assert np.array_equal(read_scan("scene.npy").points, load(bundled)(read_scan("a.bin")).points)


def test_several_scans_and_folders_fill_a_folder(place, model, shown):
    Path("more").mkdir()
    np.save("more/c.npy", street(3))
    Path("more/notes.txt").write_text("no scan")
    command = ("complete", "a.bin", "b.bin", "more", "-o", "scenes/new", "--model", str(model))
    out = shown(*command, "--picture", "pictures", "--coarse", "coarse")
    names = {"a", "b", "c"}
    assert {path.name for path in Path("scenes/new").iterdir()} == {f"{name}.ply" for name in names}
    assert {path.name for path in Path("coarse").iterdir()} == {f"{name}.ply" for name in names}
    assert {path.name for path in Path("pictures").iterdir()} == {f"{name}.png" for name in names}
    assert out.count("seconds") == 3
    alone = load(model)(read_scan("b.bin")).points
    assert np.array_equal(read_scan("scenes/new/b.ply").points, alone), (
        "a scene does not depend on its company"
    )


def test_of_several_scans_a_bad_one_does_not_stop_the_others(place, model, capsys):
    Path("bad.bin").write_bytes(b"123")
    assert main(["complete", "a.bin", "bad.bin", "b.bin", "-o", "scenes", "--model", str(model)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert "bad.bin" in err[0]
    assert err[1] == "densescan: 1 of 3 scans were not completed, see above"
    assert {path.name for path in Path("scenes").iterdir()} == {"a.ply", "b.ply"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("a.bin", "b.bin", "-o", "scene.ply"),
            "several scans need a folder for their results, got scene.ply",
        ),
        (
            ("a.bin", "a.bin", "-o", "scenes"),
            "several scans are named a: complete them into different folders",
        ),
        (("a.bin", "b.bin", "-o", "a.bin/x"), "is a file; name another folder"),
        (("-o", "scene.ply"), "expected a scan to complete, got none"),
    ],
)
def test_unclear_orders_are_refused(place, model, capsys, args, message):
    assert main(["complete", *args, "--model", str(model)]) == 2
    assert message in capsys.readouterr().err


# Errors that are no mistake of the user


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (FloatingPointError("the loss is nan"), 1, "the loss is nan"),
        (MemoryError(), 1, "out of memory: use fewer points or a smaller model"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "out of memory"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_other_ends_are_one_line_too(monkeypatch, capsys, error, status, line):
    def run(*_: object) -> None:
        raise error

    monkeypatch.setattr(app, "_run", run)
    assert main(["info"]) == status
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def run(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(app, "_run", run)
    with pytest.raises(RuntimeError, match="mat1"):
        main(["info"])


# Progress


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 5.0, 21.0, 22.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(console, "LINE_SECONDS", 10.0)
    with console.progress("work", 10) as update:
        for done in (2, 3, 6, 7):
            update(done, "loss 1")
    assert capsys.readouterr().err == "densescan: work 6 of 10, 20.0 s left, loss 1\n"


def test_on_a_terminal_progress_is_a_bar_that_goes(monkeypatch, capsys):
    monkeypatch.setattr(
        console,
        "Console",
        lambda **_: Console(stderr=True, force_terminal=True, width=100, color_system=None),
    )
    with console.progress("work", 10) as update:
        update(4, "loss 1")
        update(5, "loss 2")
    out, err = capsys.readouterr()
    assert "work" in err
    assert "5/10" in err
    assert "loss 2" in err
    assert out == ""


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (90.0, "2 min"), (3700.0, "1 h 2 min")])
def test_durations_are_readable(seconds, text):
    assert console.duration(seconds) == text


# info and weights


def test_info_describes_a_scan(place, shown):
    points = np.array([[3, 4, 0, 0.1], [60, 0, 0, 0.2], [0, 10, -1, 0.9], [np.nan, 0, 0, 0]], "<f4")
    points.tofile("c.bin")
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in shown("info", "c.bin").splitlines())
    assert lines["points"] == "3"
    assert lines["dropped"].startswith("dropped 1 of 4 points that are not finite")
    assert lines["used"].startswith("2 lie between 3.5 and 50 m")
    assert lines["distance"] == "5.00 to 60.00 m, median 10.05 m"
    assert lines["x forward"] == "0.00 to 60.00 m"
    assert lines["z up"] == "-1.00 to 0.00 m"
    assert lines["remission"] == "0.1 to 0.9"


def test_info_and_show_describe_a_model(model, shown, place):
    text = shown("info", str(model))
    assert text == shown("weights", "show", str(model))
    networks = load(model).networks
    for name, network in networks.present().items():
        count = sum(p.numel() for p in network.parameters())
        assert re.search(rf"^{name} +{count:,} parameters, width 0.125, norm layer", text, flags=re.MULTILINE)
    assert "steps 2" in text
    assert text.endswith("# A tiny model\n\nIts weights are random.\n")


def test_info_describes_the_installation(shown, bundled):
    text = shown("info")
    assert re.search(rf"^torch +{re.escape(torch.__version__)}$", text, flags=re.MULTILINE)
    assert re.search(rf"^torch threads +{torch.get_num_threads()}$", text, flags=re.MULTILINE)
    assert re.search(r"^bundled models +small$", text, flags=re.MULTILINE)


def test_list_names_the_bundled_models(shown, bundled):
    assert shown("weights", "list") == "small (default)  A tiny model\n"


def test_convert_makes_a_model_that_completes(place, shown):
    torch.manual_seed(0)
    networks = build(ModelConfig(NetConfig(width=1 / 8)))
    torch.save({"state_dict": networks.state_dict(), "epoch": 3}, "diff_net.ckpt")
    shown("weights", "convert", "diff_net.ckpt", "-o", "models/lidiff")
    options = ("--scan-points", "100", "--repeat", "2", "--steps", "1", "--sampler", "consistent")
    shown("complete", "a.bin", "-o", "scene.ply", "--model", "models/lidiff", *options)
    assert Path("scene.ply").is_file()


def test_merge_joins_models_and_changes_parameters(place, model, shown):
    changes = ("steps=5", "refine=false", "voxel-size=0.3", "guidance_scale=1.5", "sampler=ddim")
    shown("weights", "merge", str(model), "-o", "merged", "--float16", "--completion", *changes)
    networks, config = read_model("merged")
    expected = {"steps": 5, "refine": False, "voxel_size": 0.3, "guidance_scale": 1.5, "sampler": "ddim"}
    assert vars(config.completion) == vars(CONFIG) | expected
    original, _ = read_model(model)
    ours = networks.state_dict()
    assert all(torch.equal(ours[name], value.half().float()) for name, value in original.state_dict().items())


# data and train


def fake_sequence(seed: int, frames: int, spacing: float) -> list[SimulatedFrame]:
    """A street without ray casting."""
    sequence = []
    for index in range(frames):
        scan, truth = street(seed + index), street(seed + index + 50, 900)
        pose = np.eye(4)
        pose[0, 3] = spacing * index
        labels = np.full(len(truth), 40, np.uint32)
        remission = np.zeros(len(scan), np.float32)
        sequence.append(SimulatedFrame(scan, remission, labels[: len(scan)], truth, labels, pose))
    return sequence


def test_simulate_writes_the_sequences_that_are_missing(place, shown, monkeypatch):
    asked = []
    monkeypatch.setattr(
        data, "simulate_sequence", lambda *args: asked.append(args[:3]) or fake_sequence(*args[:3])
    )
    command = ("data", "simulate", "d", "--frames", "2", "--spacing", "3", "--workers", "1", "--seeds")
    assert shown(*command, "7") == "d: 1 sequences of 2 frames\n"
    assert shown(*command, "6:9") == "d: 3 sequences of 2 frames, 1 were there\n"
    assert asked == [(7, 2, 3.0), (6, 2, 3.0), (8, 2, 3.0)]
    assert {path.name for path in Path("d/sequences").iterdir()} == {"06", "07", "08"}
    assert len(list(Path("d/sequences/08/velodyne").iterdir())) == 2
    Path("d/sequences/07/poses.txt").unlink()
    shown(*command, "7")
    assert asked[-1] == (7, 2, 3.0), "a sequence without poses.txt is not complete"


@pytest.mark.slow
def test_simulate_works_in_several_processes(place, shown):
    shown("data", "simulate", "d", "--seeds", "3:5", "--frames", "1", "--workers", "2")
    for seed in ("03", "04"):
        assert len(read_scan(f"d/sequences/{seed}/velodyne/000000.bin")) > 50_000


@pytest.mark.slow
def test_mistakes_come_back_from_other_processes(place, capsys):
    assert main(["data", "simulate", "d", "--seeds", "3:5", "--frames", "100", "--workers", "2"]) == 2
    assert "use fewer or closer frames" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["teacher", "refiner"])
def test_train_resumes_and_leaves_a_model(place, shown, stage):
    write_sequence(Path("d"), 0, fake_sequence(0, 2, 5.0))
    command = ("train", stage, "--data", "d", "--out", "r", "--max-steps", "2", *SMALL_CROPS)
    first = shown(*command, "--max-minutes", "0")
    assert re.search(r"last step +1, loss \d", first)
    assert "model" in first
    halfway, config = read_model("r/model")
    assert re.search(r"last step +2, loss \d", shown(*command))
    after = read_model("r/model")[0].state_dict()
    assert not all(torch.equal(after[name], value) for name, value in halfway.state_dict().items())
    assert "none: the run was complete" in shown(*command)
    form = config.net if stage == "teacher" else config.refiner
    assert (form.width, form.voxel_size, form.norm) == (0.125, 0.4, "bounded"), "the small recipe, as changed"
    sampler = "consistent" if stage == "teacher" else CompletionConfig().sampler
    assert config.completion.sampler == sampler, "a model is sampled as it was trained"
    assert [json.loads(row)["step"] for row in Path("r/metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert main(["train", stage, "--data", "d", "--out", "r", *SMALL_CROPS[:-1], "--net.width", "0.25"]) == 2


def test_the_seed_decides_on_the_initial_weights(place, shown):
    write_sequence(Path("d"), 0, fake_sequence(0, 1, 5.0))
    command = ("train", "refiner", "--data", "d", "--max-steps", "1", *SMALL_CROPS)
    for out, seed in (("r1", "1"), ("r2", "1"), ("r3", "2")):
        torch.randn(3)
        shown(*command, "--out", out, "--seed", seed)
    states = [
        read_model(f"{out}/model")[0].state_dict()["model_refine.stem.0.kernel"] for out in ("r1", "r2", "r3")
    ]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_recipes_decide_on_the_other_defaults(shown):
    small, released = (
        shown("train", "teacher", "--help", "--recipe", name) for name in ("small", "released")
    )
    width = r"--net.width FLOAT.*?\(default:[│\s]*{}\)"
    assert re.search(width.format(r"0\.5"), small, flags=re.DOTALL)
    assert re.search(width.format(r"1\.0"), released, flags=re.DOTALL)


# The demonstration


def test_the_demonstration_completes_draws_and_scores(place, model, capsys, monkeypatch):
    truth = demo.read_truth()[::40]
    monkeypatch.setattr(demo, "read_truth", lambda: truth)
    monkeypatch.setattr(demo, "load", lambda name: load(model))
    assert demo.main() == 0
    scene = read_scan("demo/scene.ply").points
    assert Path("demo/before_after.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:]
        for cells in (re.split(r"\s*│\s*", line)[1:-1] for line in out.splitlines())
        if cells
    }
    assert list(rows) == ["bare scan", "jittered scan, 0.1 m", "densescan"]
    assert float(rows["densescan"][0]) == pytest.approx(nearest_distances(scene, truth).mean(), abs=6e-4)
    assert float(rows["densescan"][1]) == pytest.approx(nearest_distances(truth, scene).mean(), abs=6e-4)
    assert "total" in out
    assert "[m]" in out


def test_the_example_lies_on_its_truth():
    scan, truth = read_scan(demo.SCAN).points, demo.read_truth()
    distance = np.linalg.norm(scan, axis=1)
    near = scan[(distance > 4) & (distance < 45)][::50]
    assert np.median(nearest_distances(near, truth)) < 0.06
    assert 55_000 < len(scan) < 130_000
    assert sum(path.stat().st_size for path in (demo.SCAN, demo.TRUTH)) < 2.1e6


@pytest.mark.slow
def test_the_example_is_reproduced_by_its_description(place):
    text = (demo.EXAMPLES / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    made, kept = read_scan("street.bin").points, read_scan(demo.SCAN).points
    assert len(made) == pytest.approx(len(kept), rel=0.01)
    assert np.median(nearest_distances(made[::50], kept)) < 0.02
    with np.load("street_truth.npz") as archive:
        truth = archive["points"].T.astype(np.float32) / 100
    assert np.median(nearest_distances(truth[::500], demo.read_truth())) < 0.02
