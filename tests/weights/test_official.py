"""Official checkpoints: names and shapes of every release, the files they come in, and what is refused."""

import argparse
import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.weights.folder import CONFIG, ModelConfig, build, load, read_model
from densescan.weights.official import convert, from_state_dict, read_checkpoint

WIDTH = 1 / 8
SMALL = NetConfig(width=WIDTH)
LIDIFF, REFINE = "DiffusionPoints (LiDiff)", "RefineDiffusion (LiDiff)"
DPO, SCORELIDAR = "DistillationDPO", "ScoreLiDAR (training module)"


@pytest.fixture(scope="module")
def released_shapes(shared):
    return json.loads((shared / "reference" / "checkpoint_shapes.json").read_text())


@pytest.fixture(scope="module")
def golden(shared):
    """State dict of the reference's encoder and denoiser."""
    return load_file(shared / "reference" / "net_diff_cr025_weights_fp16.safetensors")


@pytest.fixture
def state():
    """Random encoder, denoiser and refiner under the released names."""
    torch.manual_seed(0)
    return build(ModelConfig(SMALL, SMALL)).state_dict()


@pytest.fixture
def lidiff(state):
    return {name: value for name, value in state.items() if not name.startswith("model_refine.")}


@pytest.fixture
def refiner(state):
    return {name: value for name, value in state.items() if name.startswith("model_refine.")}


def checkpoint(path: Path, state_dict, **more) -> Path:
    """Write what Lightning writes."""
    torch.save({"epoch": 20, "global_step": 1000, "state_dict": state_dict, "loops": {}, **more}, path)
    return path


def constants(shapes):
    """A state dict without memory: tensor i is i everywhere."""
    return {
        name: torch.tensor(float(i) if dtype == "float32" else i).expand(shape)
        for i, (name, shape, dtype) in enumerate(shapes)
    }


@pytest.mark.parametrize(
    ("release", "networks", "denoiser"),
    [
        (LIDIFF, ["encoder", "denoiser"], "model."),
        (REFINE, ["refiner"], None),
        (DPO, ["encoder", "denoiser"], "generator."),
        (SCORELIDAR, ["encoder", "denoiser"], "generator."),
    ],
)
def test_every_release_loads(released_shapes, release, networks, denoiser):
    given = constants(released_shapes[release])
    loaded = from_state_dict(given)
    assert list(loaded.present()) == networks
    assert not any(net.training for net in loaded.present().values())
    for name, value in loaded.state_dict().items():
        source = name.replace("model.", denoiser, 1) if denoiser and name.startswith("model.") else name
        assert value.shape == given[source].shape
        assert value.flatten()[0] == given[source].flatten()[0], f"{name} is not {source}"


@pytest.mark.parametrize(
    ("model", "encoder"), [("DiffModel.", "DM_encoder."), ("generator.", "partial_enc.")]
)
def test_other_prefixes_mean_the_same_networks(lidiff, model, encoder):
    renamed = {}
    for name, value in lidiff.items():
        new = (
            name.replace("partial_enc.", encoder, 1) if name.startswith("partial_enc.") else model + name[6:]
        )
        renamed[new] = value
    loaded = from_state_dict(renamed).state_dict()
    assert loaded.keys() == lidiff.keys()
    assert all(torch.equal(loaded[name], value) for name, value in lidiff.items())


def test_a_student_is_taken_and_its_teacher_left(lidiff):
    module = {name.replace("model.", "generator.", 1): value for name, value in lidiff.items()}
    for other in ("teacher.", "auxDiff.", "auxDiffBetter.", "auxDiffWorse."):
        module |= {other + n[6:]: v + 1 for n, v in lidiff.items() if n.startswith("model.")}
    loaded = from_state_dict(module).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in lidiff.items())


@pytest.mark.parametrize("width", [1 / 8, 1 / 4])
def test_the_width_is_read_off_the_weights(width):
    form = NetConfig(width=width)
    networks = from_state_dict(build(ModelConfig(form, form)).state_dict())
    assert networks.denoiser.config == form
    assert networks.refiner.config == form


def test_converted_weights_predict_the_reference_noise(golden, shared, tmp_path):
    convert([checkpoint(tmp_path / "diff_net.ckpt", golden)], tmp_path / "model")
    converted, _ = read_model(tmp_path / "model")
    given = from_state_dict(golden)
    with np.load(shared / "reference" / "net_diff_cr025.npz") as arrays:
        scan, x_t = (torch.from_numpy(arrays[name])[None] for name in ("scan", "t999.x"))
        expected = torch.from_numpy(arrays["t999.cond.lex.out"])
    with torch.inference_mode():
        eps = [
            nets.denoiser(x_t, torch.tensor([999]), nets.encoder(scan))[0]
            for nets in (converted.eval(), given)
        ]
    assert torch.equal(eps[0], eps[1])
    torch.testing.assert_close(eps[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("ending", "bare"), [(".ckpt", False), (".pth", True), (".safetensors", True)])
def test_checkpoints_come_as_lightning_plain_or_safetensors(state, tmp_path, ending, bare):
    path = tmp_path / f"net{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    elif bare:
        torch.save(state, path)
    else:
        checkpoint(path, state, optimizer_states=[{"state": {0: {"step": torch.tensor(1.0)}}}])
    read = read_checkpoint(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(lr=1e-4),
        {"train": {"lr": 1e-4, "uncond_prob": 0.1}, "data": {"path": "SemanticKITTI"}},
        torch.float16,
        np.float64(0.5),
        np.int64(3),
        Path("checkpoints"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_hyperparameters_load(refiner, tmp_path, value):
    path = checkpoint(tmp_path / "net.ckpt", OrderedDict(refiner), hyper_parameters={"x": value})
    assert read_checkpoint(path).keys() == refiner.keys()


def test_other_objects_are_refused_by_name(refiner, tmp_path):
    path = checkpoint(tmp_path / "net.ckpt", refiner, hyper_parameters=argparse.Namespace(lr=1e-4))
    with pytest.raises(
        InputError, match=r"net.ckpt cannot be read.*argparse.Namespace.*state_dict"
    ) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_malicious_checkpoint_is_not_executed(tmp_path, form):
    marker, path = tmp_path / "executed", tmp_path / "net.ckpt"
    content = {"state_dict": {}, "x": Bomb(marker)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"net.ckpt cannot be read"):
        read_checkpoint(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))  # noqa: S301 - the bomb does go off where it is let
    assert marker.exists()


def damaged(path: Path, kind: str) -> Path:
    whole = io.BytesIO()
    torch.save({"state_dict": {"model.a": torch.zeros(1000)}}, whole)
    content = {"empty": b"", "text": b"not a checkpoint\n", "truncated": whole.getvalue()[:2000]}
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize("ending", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", ["empty", "text", "truncated"])
def test_damaged_files_are_named(tmp_path, kind, ending):
    path = damaged(tmp_path / f"net{ending}", kind)
    with pytest.raises(InputError, match=rf"net{ending} cannot be read") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_directories_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing.ckpt is missing"):
        read_checkpoint(tmp_path / "nothing.ckpt")
    with pytest.raises(InputError, match="is a directory"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"state_dict": {"a": 1.0}}, torch.zeros(2)])
def test_a_file_without_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.ckpt")
    with pytest.raises(InputError, match=r"net.ckpt holds no state dict"):
        read_checkpoint(tmp_path / "net.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.last.0.bias"), "missing model.last.0.bias"),
        (lambda s: s.update({"model.surplus": torch.zeros(1)}), "unexpected model.surplus"),
        (
            lambda s: s.update({"model.last.2.bias": torch.zeros(5)}),
            r"model.last.2.bias has shape \(5,\), expected \(3,\)",
        ),
        (lambda s: s.pop("model.stem.0.kernel"), "lacks model.stem.0.kernel"),
        (lambda s: s.update({"model.stem.0.kernel": torch.zeros(4)}), r"expected \(27, 3, C\)"),
    ],
)
def test_every_wrong_tensor_is_named(lidiff, change, message):
    change(lidiff)
    with pytest.raises(InputError, match=message) as caught:
        from_state_dict(lidiff, "net.ckpt")
    assert str(caught.value).startswith("net.ckpt")


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match=r"net.ckpt holds no known network.*found backbone.conv"):
        from_state_dict({"backbone.conv": torch.zeros(1)}, "net.ckpt")


def test_convert_merges_files_and_knows_teacher_from_student(lidiff, refiner, state, tmp_path):
    refine = checkpoint(tmp_path / "refine_net.ckpt", refiner)
    teacher = checkpoint(tmp_path / "diff_net.ckpt", lidiff)
    student = checkpoint(
        tmp_path / "student.ckpt", {n.replace("model.", "generator.", 1): v for n, v in lidiff.items()}
    )
    expected = {teacher: CompletionConfig(steps=50, guidance_scale=6.0), student: CompletionConfig()}
    for path, completion in expected.items():
        convert([path, refine], tmp_path / path.stem)
        completer = load(tmp_path / path.stem)
        assert completer.config == completion
        ours = completer.networks.state_dict()
        assert all(torch.equal(ours[name], value) for name, value in state.items())
        assert path.name in (tmp_path / path.stem / "README.md").read_text()


def test_convert_needs_each_network_once(lidiff, refiner, tmp_path):
    diffusion = checkpoint(tmp_path / "diff_net.ckpt", lidiff)
    refine = checkpoint(tmp_path / "refine_net.ckpt", refiner)
    with pytest.raises(InputError, match="no encoder and no denoiser in"):
        convert([refine], tmp_path / "model")
    with pytest.raises(InputError, match=r"diff_net.ckpt holds a second encoder"):
        convert([diffusion, diffusion], tmp_path / "model")
    assert not (tmp_path / "model" / CONFIG).exists()
