"""`densescan weights`: the models there are, models fetched, published, merged, or made of official checkpoints."""

from dataclasses import dataclass
from typing import Annotated

import torch
import tyro

from densescan.cli.console import rows, say
from densescan.cli.info import describe_model
from densescan.cli.options import Command, Inputs, Output, check_folder, parse
from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.weights.folder import (
    CARD,
    DEFAULT_MODEL,
    bundled_names,
    merge,
    model_folder,
    read_config,
)
from densescan.weights.hub import download, push
from densescan.weights.official import convert


@dataclass(frozen=True)
class List(Command):
    """List the models that come with the package.

    Examples:
      densescan weights list
    """

    def run(self) -> None:
        """Print a line for each model: its name and the first line of its card."""
        names = bundled_names()
        if not names:
            say("no bundled models")
            return
        say(rows({name + (" (default)" if name == DEFAULT_MODEL else ""): _title(name) for name in names}))


@dataclass(frozen=True)
class Show(Command):
    """Show the form, the parameters and the card of a model.

    Examples:
      densescan weights show small
      densescan weights show mymodel/
    """

    name: tyro.conf.Positional[str]
    """A bundled model's name or a model folder."""

    def run(self) -> None:
        """Print the description.

        Raises: InputError: no such model, or a damaged one.
        """
        say(describe_model(self.name))


@dataclass(frozen=True)
class Download(Command):
    """Fetch a model from the Hugging Face Hub into a model folder. No other command uses the network but `push`.

    Examples:
      densescan weights download someone/densescan-large -o large/
      densescan weights download someone/densescan-large -o large/ --revision v1.1
      densescan complete 000123.bin -o scene.ply --model large/
    """

    repository: tyro.conf.Positional[str]
    """The repository on the Hub, as USER/NAME."""
    output: Output
    """The model folder to write."""
    revision: str | None = None
    """Branch, tag or commit; none: the newest on the main branch."""

    def run(self) -> None:
        """Write the model folder.

        Raises: InputError: no network, no such repository, no model in it, or an output that cannot be written.
        """
        check_folder(self.output)
        download(self.repository, self.output, self.revision)
        say(describe_model(str(self.output)))


@dataclass(frozen=True)
class Push(Command):
    """Publish a model on the Hugging Face Hub; log in with `hf auth login` first.

    Examples:
      densescan weights push mymodel/ me/densescan-mymodel
      densescan weights push mymodel/ me/densescan-mymodel --private
    """

    model: tyro.conf.Positional[str]
    """A model folder or a bundled model's name."""
    repository: tyro.conf.Positional[str]
    """The repository on the Hub, as USER/NAME; it is made where it is missing."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A new repository is visible to its owners alone."""

    def run(self) -> None:
        """Publish, and say where.

        Raises: InputError: a bad model, no network, not logged in, or no permission.
        """
        say(f"published: {push(self.model, self.repository, self.private)}")


@dataclass(frozen=True)
class Convert(Command):
    """Turn official checkpoints (LiDiff, ScoreLiDAR, Distillation-DPO) into a model folder; runs no code from them.

    Examples:
      densescan weights convert diff_net.ckpt refine_net.ckpt -o lidiff/
      densescan weights convert distillation_dpo.ckpt refine_net.ckpt -o student/
    """

    checkpoints: Annotated[
        Inputs, tyro.conf.arg(metavar="CHECKPOINT [CHECKPOINT ...]", help_behavior_hint="(required)")
    ]
    """Lightning .ckpt, .pt, .pth or .safetensors files: the diffusion networks and, if wanted, the refiner."""
    output: Output
    """The model folder to write."""

    def run(self) -> None:
        """Write the model folder.

        Raises: InputError: a file that is no checkpoint or of other networks, or an output that cannot be written.
        """
        if not self.checkpoints:
            raise InputError("expected a checkpoint to convert, got none: name a file such as diff_net.ckpt")
        check_folder(self.output)
        convert(self.checkpoints, self.output)
        say(describe_model(str(self.output)))


@dataclass(frozen=True)
class Merge(Command):
    """Make one model of several, such as a trained teacher and a trained refiner.

    Examples:
      densescan weights merge runs/teacher/model runs/refiner/model -o mymodel/
      densescan weights merge teacher/model refiner/model -o mymodel/ --float16 --completion steps=8 sampler=ddim
      densescan weights merge small runs/refiner/model -o mymodel/ --replace --share small
    """

    models: Annotated[Inputs, tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)")]
    """Model folders or names of bundled models, each network in one of them."""
    output: Output
    """The model folder to write."""
    completion: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE [FIELD=VALUE ...]")] = ()
    """How the result completes scans where it differs from the model with the denoiser, such as steps=8."""
    float16: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Store the tensors in half the space, as float16."""
    share: Annotated[str | None, tyro.conf.arg(metavar="{None}|NAME")] = None
    """A bundled model; networks that it holds as they are, such as the same refiner, are not stored again."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let the networks of a later model take the place of those of an earlier one."""

    def run(self) -> None:
        """Write the model folder.

        Raises: InputError: a bad model, a network given twice, an unknown field, or an unwritable output.
        """
        if not self.models:
            raise InputError("expected a model to merge, got none: name folders such as runs/teacher/model")
        check_folder(self.output)
        configs = [read_config(model_folder(model)) for model in map(str, self.models)]
        base = next((config for config in configs if config.net is not None), configs[0]).completion
        dtype = torch.float16 if self.float16 else torch.float32
        merge(
            [str(model) for model in self.models],
            self.output,
            _changed(base, self.completion),
            dtype,
            self.share,
            self.replace,
        )
        say(describe_model(str(self.output)))


def _changed(base: CompletionConfig, changes: tuple[str, ...]) -> CompletionConfig:
    """Read FIELD=VALUE pairs by the types of the fields."""
    known = CompletionConfig.__dataclass_fields__
    args = []
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator or name.replace("-", "_") not in known:
            raise InputError(
                f"expected --completion FIELD=VALUE, got {change}: fields are {', '.join(known)}"
            )
        args += [f"--{name}", value.capitalize() if value in ("true", "false", "none") else value]
    return parse(CompletionConfig, "--completion", args, default=base, config=(tyro.conf.FlagConversionOff,))


def _title(name: str) -> str:
    card = model_folder(name) / CARD
    return card.read_text().splitlines()[0].lstrip("# ") if card.is_file() else ""
