"""A model on disk: a folder with `config.json`, `model.safetensors` and, for people, `README.md` (the model card)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.files import atomic_write, make_folder
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import PREFIXES, Networks
from densescan.nets.refiner import Refiner

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_MODEL = "small"
"""The bundled model that completes unless another is named."""
DEFAULT_TEACHER = "small-teacher"
"""The bundled model that is distilled or fine-tuned unless another is named."""

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """What `config.json` holds: the form of each network (None: absent) and how scans are completed with them."""

    net: NetConfig | None = None
    refiner: NetConfig | None = None
    completion: CompletionConfig = field(default_factory=CompletionConfig)
    shared: dict[str, str] = field(default_factory=dict)
    """Networks whose tensors are not stored again, with the bundled model that has them."""


def build(config: ModelConfig) -> Networks:
    """Networks of a given form, with random weights."""
    networks = Networks()
    if config.net is not None:
        networks.encoder, networks.denoiser = ConditionEncoder(config.net), Denoiser(config.net)
    if config.refiner is not None:
        networks.refiner = Refiner(config.refiner)
    return networks


def fill(networks: Networks, tensors: dict[str, Tensor], source: str) -> Networks:
    """Copy tensors into networks, by the names of the released checkpoints.

    source: what to call the origin in errors.
    Raises: InputError: a missing, extra or misshapen tensor, each named.
    """
    expected = networks.state_dict()
    faults = [f"missing {name}" for name in expected if name not in tensors]
    faults += [f"unexpected {name}" for name in tensors if name not in expected]
    faults += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"{source} does not hold the weights of this architecture: {'; '.join(faults[:3])}{more}; "
            "check that the file belongs to this model"
        )
    for name, network in networks.present().items():
        prefix = PREFIXES[name]
        network.load_state_dict({k: tensors[prefix + k] for k in network.state_dict()})
    return networks


def save_model(
    folder: str | Path,
    networks: Networks,
    completion: CompletionConfig,
    card: str,
    dtype: torch.dtype = torch.float32,
    share: str | None = None,
) -> None:
    """Write a model folder.

    Args: dtype: how floating-point tensors are stored; they are read back as float32. share: a bundled model; networks
        that are stored there to the bit are read from there. None: all are stored.
    Raises: InputError: encoder without denoiser or the reverse, a folder that cannot be made or written, or no bundled
        model of that name.
    """
    if (networks.encoder is None) != (networks.denoiser is None):
        raise InputError(
            f"cannot save {folder}: encoder and denoiser belong together, got {', '.join(networks.present())} alone"
        )
    folder = Path(folder)
    make_folder(folder)
    net = networks.denoiser.config if networks.denoiser is not None else None
    refiner = networks.refiner.config if networks.refiner is not None else None
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in networks.state_dict().items()
    }
    shared = _shared(tensors, share)
    own = {name: value for name, value in tensors.items() if _network_of(name) not in shared}
    with atomic_write(folder / TENSORS) as temporary:
        save_file(own, temporary)
    with atomic_write(folder / CARD) as temporary:
        temporary.write_text(card)
    with atomic_write(folder / CONFIG) as temporary:  # last: a folder that has it is complete
        config = ModelConfig(net, refiner, completion, shared)
        temporary.write_text(json.dumps(asdict(config), indent=2) + "\n")


def _network_of(tensor: str) -> str:
    """The network that a tensor belongs to, by its name; empty: none."""
    return next((name for name, prefix in PREFIXES.items() if tensor.startswith(prefix)), "")


def _shared(tensors: dict[str, Tensor], share: str | None) -> dict[str, str]:
    """The networks among these tensors whose every tensor is that of a bundled model, with its name."""
    if share is None:
        return {}
    theirs = _read_bundled(share)
    parts = {network: [name for name in tensors if _network_of(name) == network] for network in PREFIXES}
    return {
        network: share
        for network, names in parts.items()
        if names and all(n in theirs and torch.equal(tensors[n].to(theirs[n]), theirs[n]) for n in names)
    }


def _read_bundled(name: str) -> dict[str, Tensor]:
    """The tensors that a bundled model stores itself.

    Raises: InputError: no such bundled model.
    """
    if name not in bundled_names():
        known = ", ".join(bundled_names()) or "none is there"
        raise InputError(f"no bundled model {name} to take networks from: known are {known}")
    return read_tensors(BUNDLED / name / TENSORS)


def bundled_names() -> list[str]:
    """Models that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def model_folder(name_or_path: str | Path) -> Path:
    """The folder of a bundled model or of one on disk.

    Raises: InputError: neither.
    """
    path = Path(name_or_path)
    if str(name_or_path) in bundled_names():
        return BUNDLED / str(name_or_path)
    if path.is_file():
        raise InputError(
            f"{path} is a file, expected a model folder with {CONFIG} and {TENSORS}: "
            f"turn official checkpoints into one with `densescan weights convert {path} -o FOLDER`"
        )
    if not (path / CONFIG).is_file():
        raise InputError(
            f"no model {name_or_path}: expected a folder that holds {CONFIG}, or one of the bundled models "
            f"({', '.join(bundled_names()) or 'none is there'}); `densescan weights download` fetches others"
        )
    return path


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a model folder.

    Raises: InputError: not JSON, or fields or values that this version does not know.
    """
    path = folder / CONFIG
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        net, refiner = (_parse(NetConfig, raw[part]) for part in ("net", "refiner"))
        completion = _parse(CompletionConfig, raw["completion"]) or CompletionConfig()
        config = ModelConfig(net, refiner, completion, _names(raw.get("shared", {})))
        with torch.device("meta"):  # shapes alone: does the form make sense?
            build(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(
            f"{path} is no model configuration of this version ({reason}): get the model again"
        ) from error
    return config


def _parse(kind: type[T], raw: dict[str, Any] | None) -> T | None:
    if raw is None:
        return None
    unknown = set(raw) - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    return kind(**raw)


def _names(raw: dict[str, str]) -> dict[str, str]:
    """The networks that another model holds, checked."""
    if not all(network in PREFIXES and isinstance(model, str) for network, model in raw.items()):
        raise ValueError(f"expected shared networks as {{network: bundled model}}, got {raw}")
    return raw


def tensor_files(folder: Path) -> list[Path]:
    """The files that hold the tensors of a model folder: its own, and those of models that it shares networks with."""
    shared = sorted(set(read_config(folder).shared.values()))
    return [folder / TENSORS, *(BUNDLED / name / TENSORS for name in shared)]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, floating-point ones as float32.

    Raises: InputError: missing, truncated, or not safetensors (a pickle, say).
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as safetensors ({reason}): get the model again, or convert a checkpoint with "
            "`densescan weights convert`"
        ) from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def read_model(name_or_path: str | Path) -> tuple[Networks, ModelConfig]:
    """Networks and configuration of a bundled model or of a model folder.

    Raises: InputError: no such model, or one that is damaged or of another architecture.
    """
    folder = model_folder(name_or_path)
    config = read_config(folder)
    path = folder / TENSORS
    tensors = read_tensors(path)
    for network, model in config.shared.items():
        prefix = PREFIXES[network]
        tensors |= {name: value for name, value in _read_bundled(model).items() if name.startswith(prefix)}
    return fill(build(config), tensors, str(path)), config


def load(name_or_path: str | Path, device: str | torch.device = "cpu") -> Completer:
    """A completer from a bundled model's name or from a model folder.

    Raises: InputError: no such model, one that is damaged or of another architecture, or without encoder and denoiser.
    """
    networks, config = read_model(name_or_path)
    return Completer(networks, config.completion, device)


def merge(
    models: Sequence[str | Path],
    folder: str | Path,
    completion: CompletionConfig | None = None,
    dtype: torch.dtype = torch.float32,
    share: str | None = None,
    replace: bool = False,
) -> Networks:
    """Make one model folder of several, such as a trained teacher and a trained refiner.

    Args: models: names or folders, each network in one of them. completion: how the result completes scans; None: as
        the model with the denoiser does. dtype: how floating-point tensors are stored. replace: a network of a later
        model takes the place of that of an earlier one.
    Raises: InputError: a model that cannot be read, a network given twice, or a folder that cannot be written.
    """
    merged, cards = Networks(), []
    for model in models:
        networks, config = read_model(model)
        for name, network in networks.present().items():
            if name in merged.present() and not replace:
                raise InputError(
                    f"{model} holds a second {name}: give each network once, or --replace the first by it"
                )
            setattr(merged, name, network)
        if completion is None and networks.denoiser is not None:
            completion = config.completion
        card = model_folder(model) / CARD
        cards.append(card.read_text() if card.is_file() else f"# {model}\n")
    save_model(folder, merged, completion or CompletionConfig(), "\n".join(cards), dtype, share)
    return merged
