"""Model folders: what is written is read again, and what is damaged is named."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.weights import folder as folder_module
from densescan.weights.folder import (
    BUNDLED,
    CARD,
    CONFIG,
    DEFAULT_MODEL,
    DEFAULT_TEACHER,
    TENSORS,
    ModelConfig,
    build,
    bundled_names,
    load,
    merge,
    model_folder,
    read_config,
    read_model,
    save_model,
)

NET = NetConfig(width=1 / 8, norm="layer", voxel_size=0.2, point_features="local", see_scan=True)
REFINER = NetConfig(width=1 / 8, voxel_size=0.4)
COMPLETION = CompletionConfig(steps=3, sampler="consistent", eta=0.5, voxel_size=0.25)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return build(ModelConfig(NET, REFINER))


@pytest.fixture
def model(networks, tmp_path) -> Path:
    save_model(tmp_path / "model", networks, COMPLETION, "# A model\n\nfor tests\n")
    return tmp_path / "model"


def test_a_model_is_read_as_it_was_written(networks, model):
    read, config = read_model(model)
    assert config == ModelConfig(NET, REFINER, COMPLETION)
    assert read.denoiser.config == NET
    expected = networks.state_dict()
    assert read.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in read.state_dict().items())
    assert (model / CARD).read_text() == "# A model\n\nfor tests\n"
    completer = load(str(model))
    assert completer.config == COMPLETION
    assert not completer.networks.denoiser.training


def test_half_precision_takes_half_the_space(networks, model, tmp_path):
    save_model(tmp_path / "half", networks, COMPLETION, "", torch.float16)
    size = {path: (path / TENSORS).stat().st_size for path in (model, tmp_path / "half")}
    assert size[tmp_path / "half"] < 0.55 * size[model]
    read, _ = read_model(tmp_path / "half")
    for name, value in networks.state_dict().items():
        half = read.state_dict()[name]
        assert half.dtype == value.dtype
        assert torch.equal(half, value.half().float() if value.is_floating_point() else value)


def test_a_refiner_alone_is_a_model_but_no_completer(networks, tmp_path):
    save_model(tmp_path / "refiner", Networks(refiner=networks.refiner), COMPLETION, "")
    read, config = read_model(tmp_path / "refiner")
    assert list(read.present()) == ["refiner"]
    assert config.net is None
    with pytest.raises(InputError, match="needs an encoder and a denoiser"):
        load(tmp_path / "refiner")


def test_encoder_and_denoiser_belong_together(networks, tmp_path):
    with pytest.raises(InputError, match="belong together, got encoder alone"):
        save_model(tmp_path / "model", Networks(encoder=networks.encoder), COMPLETION, "")
    assert not (tmp_path / "model").exists()


def test_bundled_models_are_found_by_name(model, monkeypatch):
    monkeypatch.setattr(folder_module, "BUNDLED", model.parent)
    assert bundled_names() == ["model"]
    assert model_folder("model") == model
    with pytest.raises(InputError, match=r"no model nothing.*bundled models \(model\)"):
        model_folder("nothing")


def test_the_bundled_models_are_those_that_others_name():
    assert {DEFAULT_MODEL, DEFAULT_TEACHER, "distillation-dpo"} <= set(bundled_names())
    for name in bundled_names():
        assert load(name).networks.refiner is not None
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*")) < 40e6, "what a package may weigh"


def test_distillation_dpo_is_another_name_of_the_default_model():
    ours, theirs = load("distillation-dpo"), load(DEFAULT_MODEL)
    assert ours.config == theirs.config
    expected = theirs.networks.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.networks.state_dict().items())


def test_a_checkpoint_in_place_of_a_folder_names_the_way(tmp_path):
    (tmp_path / "diff_net.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"diff_net.ckpt is a file.*densescan weights convert"):
        load(tmp_path / "diff_net.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: "{", "no model configuration"),
        (lambda c: "[]", "no model configuration"),
        (lambda c: b"\xff\xfe", "no model configuration"),
        (lambda c: c | {"net": {"depth": 5}}, "unknown fields depth"),
        (lambda c: {"net": None}, "it lacks 'refiner'"),
        (lambda c: c | {"net": c["net"] | {"width": 0.0}}, "width"),
        (lambda c: c | {"net": c["net"] | {"width": "wide"}}, "no model configuration"),
        (lambda c: c | {"net": c["net"] | {"norm": "group"}}, "no model configuration"),
        (lambda c: c | {"shared": {"decoder": "small"}}, "expected shared networks"),
        (lambda c: c | {"shared": ["small"]}, "no model configuration"),
        (lambda c: c | {"completion": c["completion"] | {"steps": 0}}, "steps must be"),
        (lambda c: c | {"completion": c["completion"] | {"steps": 2.5}}, "no model configuration"),
        (lambda c: c | {"completion": c["completion"] | {"lam": "much"}}, "no model configuration"),
        (lambda c: c | {"completion": c["completion"] | {"sampler": "best"}}, "no model configuration"),
    ],
)
def test_a_damaged_configuration_is_named(model, change, message):
    changed = change(json.loads((model / CONFIG).read_text()))
    content = changed if isinstance(changed, str | bytes) else json.dumps(changed)
    (model / CONFIG).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as caught:
        read_config(model)
    assert str(model / CONFIG) in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_pickle_in_place_of_the_tensors_is_not_executed(model, tmp_path):
    marker = tmp_path / "executed"
    (model / TENSORS).write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(InputError, match=rf"{TENSORS} cannot be read as safetensors") as caught:
        load(model)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_damaged_tensors_are_named(model, damage):
    path = model / TENSORS
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"{TENSORS} cannot be read as safetensors"):
        load(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.last.0.bias"), "missing model.last.0.bias"),
        (lambda t: t.update({"model.surplus": torch.zeros(1)}), "unexpected model.surplus"),
        (
            lambda t: t.update({"model.last.2.bias": torch.zeros(5)}),
            r"last.2.bias has shape \(5,\), expected \(3,\)",
        ),
    ],
)
def test_every_wrong_tensor_is_named(model, change, message):
    tensors = load_file(model / TENSORS)
    change(tensors)
    save_file(tensors, model / TENSORS)
    with pytest.raises(InputError, match=message) as caught:
        load(model)
    assert str(model / TENSORS) in str(caught.value)


def test_an_unfinished_model_has_no_configuration(networks, tmp_path):
    (tmp_path / "model" / CARD).mkdir(
        parents=True
    )  # in the way of the card, which is written before config.json
    with pytest.raises(InputError, match="it is a directory"):
        save_model(tmp_path / "model", networks, COMPLETION, "")
    assert not (tmp_path / "model" / CONFIG).exists()


def test_a_place_that_cannot_be_written_is_named(networks, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot create the folder"):
        save_model(tmp_path / "file" / "model", networks, COMPLETION, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_protected_place_is_named(networks, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot create the folder"):
        save_model(tmp_path / "model", networks, COMPLETION, "")


def test_merge_takes_each_network_from_its_model(networks, tmp_path):
    teacher = Networks(networks.encoder, networks.denoiser)
    save_model(tmp_path / "teacher", teacher, COMPLETION, "# Teacher\n")
    save_model(
        tmp_path / "refiner", Networks(refiner=networks.refiner), CompletionConfig(steps=7), "# Refiner\n"
    )
    merge([tmp_path / "refiner", tmp_path / "teacher"], tmp_path / "both")
    read, config = read_model(tmp_path / "both")
    assert config == ModelConfig(NET, REFINER, COMPLETION), "the model with the denoiser says how to complete"
    expected = networks.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in read.state_dict().items())
    assert {"# Teacher", "# Refiner"} <= set((tmp_path / "both" / CARD).read_text().splitlines())
    merge([tmp_path / "both"], tmp_path / "few", CompletionConfig(steps=1), torch.float16)
    assert read_config(tmp_path / "few").completion.steps == 1


def test_networks_that_a_bundled_model_holds_are_not_stored_again(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "BUNDLED", tmp_path)
    save_model(tmp_path / "first", networks, COMPLETION, "", torch.float16)
    torch.manual_seed(1)
    other = Networks(networks.encoder, build(ModelConfig(NET, None)).denoiser, networks.refiner)
    save_model(tmp_path / "second", other, COMPLETION, "", torch.float16, share="first")
    stored = load_file(tmp_path / "second" / TENSORS)
    assert {name.split(".")[0] for name in stored} == {"model"}
    read, config = read_model("second")
    assert config.shared == {"encoder": "first", "refiner": "first"}
    expected = other.state_dict()
    for name, value in read.state_dict().items():
        whole = expected[name]
        assert torch.equal(value, whole.half().float() if whole.is_floating_point() else whole)
    merge(["second"], tmp_path / "whole", dtype=torch.float16)
    assert read_config(tmp_path / "whole").shared == {}
    assert load_file(tmp_path / "whole" / TENSORS).keys() == expected.keys()


def test_a_model_that_shares_all_is_another_name(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "BUNDLED", tmp_path)
    save_model(tmp_path / "first", networks, COMPLETION, "")
    merge(["first"], tmp_path / "second", CompletionConfig(steps=1), share="first")
    assert (tmp_path / "second" / TENSORS).stat().st_size < 100
    assert load("second").config.steps == 1


def test_a_bundled_model_to_share_with_must_be_there(networks, model, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "BUNDLED", tmp_path / "bundled")
    with pytest.raises(InputError, match="no bundled model first to take networks from"):
        save_model(tmp_path / "second", networks, COMPLETION, "", share="first")
    config = json.loads((model / CONFIG).read_text()) | {"shared": {"refiner": "first"}}
    (model / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match="no bundled model first to take networks from"):
        load(model)


def test_merge_refuses_a_network_given_twice(model, tmp_path):
    with pytest.raises(InputError, match="holds a second encoder"):
        merge([model, model], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_merge_replaces_a_network_where_asked(networks, model, tmp_path):
    torch.manual_seed(1)
    refiner = build(ModelConfig(NET, REFINER)).refiner
    save_model(tmp_path / "refiner", Networks(refiner=refiner), COMPLETION, "# Refiner")
    merged = merge([model, tmp_path / "refiner"], tmp_path / "both", replace=True)
    read, _ = read_model(tmp_path / "both")
    expected = {**networks.state_dict(), **Networks(refiner=refiner).state_dict()}
    assert all(torch.equal(value, expected[name]) for name, value in read.state_dict().items())
    assert merged.refiner is not None
