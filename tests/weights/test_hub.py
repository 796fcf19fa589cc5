"""Models on the Hub, by its own library against a hub on this machine."""

import runpy
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from densescan.cli import main
from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.weights import folder as folder_module
from densescan.weights.folder import CARD, CONFIG, TENSORS, ModelConfig, build, merge, save_model
from densescan.weights.hub import download, push

server = runpy.run_path(str(Path(__file__).with_name("hub_server.py")))
Hub, serve, COMMIT = server["Hub"], server["serve"], server["COMMIT"]
NAME = "someone/densescan-test"
FILES = (CARD, CONFIG, TENSORS)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub(token="secret")
    server = serve(hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    files = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", "secret")
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    net = NetConfig(width=1 / 8, voxel_size=0.2)
    save_model(tmp_path / "mine", build(ModelConfig(net, None)), CompletionConfig(steps=2), "# Mine\n")
    (tmp_path / "mine" / "notes.txt").write_text("not part of the model")
    return tmp_path / "mine"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_published_is_fetched_again(hub, model, tmp_path):
    assert push(model, NAME, private=True).endswith(f"/{NAME}/commit/{COMMIT}")
    assert hub.private == {NAME: True}
    assert hub.commits == ["Publish mine"]
    download(NAME, tmp_path / "fetched")
    assert contents(tmp_path / "fetched") == {name: (model / name).read_bytes() for name in FILES}


def test_the_command_line_publishes_and_fetches(hub, model, tmp_path, capsys):
    assert main(["weights", "push", str(model), NAME]) == 0
    assert f"{NAME}/commit/" in capsys.readouterr().out
    assert main(["weights", "download", NAME, "-o", str(tmp_path / "fetched"), "--revision", "main"]) == 0
    assert "# Mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("someone/else", None, "someone/else: .*check its name"),
        (NAME, "v9", "check the revision"),
        ("no name", None, "user/name"),
    ],
)
def test_what_is_not_there_is_named(hub, model, tmp_path, name, revision, message):
    push(model, NAME)
    with pytest.raises(InputError, match=message):
        download(name, tmp_path / "fetched", revision)
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytorch_model.bin": b"x"}, "config.json and model.safetensors missing"),
        ({CONFIG: b"{}", TENSORS: b"x"}, "no model configuration of this version"),
    ],
)
def test_a_repository_of_something_else_leaves_no_folder(hub, tmp_path, files, message):
    hub.files[NAME] = files
    with pytest.raises(InputError, match=message):
        download(NAME, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_file_in_the_way_of_the_folder_is_named(hub, model, tmp_path):
    push(model, NAME)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot create the folder"):
        download(NAME, tmp_path / "file" / "fetched")


def test_publishing_needs_a_login(hub, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(InputError, match="hf auth login"):
        push(model, NAME)
    assert hub.files == {}


def test_a_network_that_is_down_is_said(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="check the network"):
        push(model, NAME)


def test_a_damaged_model_is_not_published(hub, model):
    (model / TENSORS).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        push(model, NAME)
    assert hub.files == {}


def test_a_model_that_leans_on_this_installation_is_not_published(hub, model, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "BUNDLED", tmp_path)
    merge(["mine"], tmp_path / "leaning", share="mine")
    with pytest.raises(InputError, match="densescan weights merge leaning -o FOLDER"):
        push("leaning", NAME)
    assert hub.files == {}
