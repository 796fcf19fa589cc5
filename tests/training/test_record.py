"""What a run folder says about its run."""

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from densescan.errors import InputError
from densescan.training import record

ROOT = Path(__file__).resolve().parents[2]
STAGE = {"net": {"width": 0.5, "norm": "layer"}, "share": 0.1, "sizes": (1, 2)}


def test_environment_names_versions_and_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = record.environment()
    assert environment["python"] == platform.python_version()
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert environment["cpu"]
    assert json.loads(json.dumps(environment)) == environment


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_environment_names_the_commit() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    commit = str(record.environment()["commit"])
    assert commit.removesuffix("-dirty") == head.stdout.strip()


def test_environment_does_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.environment()["commit"] is None


def test_a_package_inside_a_foreign_repository_has_no_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    assert record.environment()["commit"] is None


def test_the_same_stage_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    record.check_same_stage(path, STAGE)  # nothing to compare with
    record.write_json(path, {"loop": {"lr": 1.0}, "stage": STAGE})
    record.check_same_stage(path, STAGE)
    record.check_same_stage(path, {**STAGE, "new_option": 3})


@pytest.mark.parametrize(
    ("stage", "difference"),
    [
        ({**STAGE, "share": 0.2}, "share = 0.1, got 0.2"),
        ({**STAGE, "sizes": (1, 3)}, r"sizes = \[1, 2\], got \[1, 3\]"),
        ({**STAGE, "net": {"width": 0.5, "norm": "batch"}}, "net.norm = layer, got batch"),
    ],
)
def test_another_stage_is_refused(tmp_path: Path, stage: dict[str, object], difference: str) -> None:
    path = tmp_path / "config.json"
    record.write_json(path, {"stage": STAGE})
    with pytest.raises(InputError, match=f"{path}: the run was started with {difference}: resume with"):
        record.check_same_stage(path, stage)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"stage": 3}'])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"{path} is not the configuration of a run"):
        record.check_same_stage(path, STAGE)


def test_metrics_of_lost_steps_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    record.forget_metrics_after(path, 3)
    assert not path.exists()
    for step in range(1, 6):
        record.append_metrics(path, {"step": step, "loss": step / 10})
    whole = path.read_text()
    record.forget_metrics_after(path, 5)
    assert path.read_text() == whole
    path.write_text(whole + '{"step": 6, "lo')  # killed while it wrote
    record.forget_metrics_after(path, 6)
    assert path.read_text() == whole
    record.forget_metrics_after(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    record.forget_metrics_after(path, 0)
    assert path.read_text() == ""


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"cannot make the folder {tmp_path}/file/run"):
        record.make_folder(tmp_path / "file" / "run")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match=f"cannot write {tmp_path}/metrics.jsonl"):
        record.append_metrics(tmp_path / "metrics.jsonl", {"step": 1})
