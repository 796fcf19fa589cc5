"""Methods by name: `[LABEL=]WHAT[:OPTION...]` on the command line.

WHAT is a bundled model or a model folder (`small`, `runs/teacher/model:coarse`, `ours=small:steps=4`), `bare`, `jitter`
with sigma [m] and maybe the number of copies (`jitter:0.2`, `jitter:0.1:60`), `refined` with a model and sigma (the
jittered scan after the model's refiner, `refined:small:0.1`), or `scenes:FOLDER`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densescan.errors import InputError
from densescan.evaluation.methods import (
    Method,
    bare_scan,
    finished_scenes,
    jittered_scan,
    model,
    refined_jitter,
)

SYNTAX = (
    "write MODEL, MODEL:coarse, MODEL:FIELD=VALUE, bare, jitter:SIGMA[:COPIES], refined:MODEL:SIGMA or scenes:FOLDER, "
    "with LABEL= before it for a name of your own"
)


def parse_method(text: str, device: str = "cpu", **changes: Any) -> Method:
    """The method that a text names; weights are loaded when the first scene is asked for.

    Args: text: see the module. device: where models compute. changes: fields of `CompletionConfig` in which all models
        differ from their own defaults.
    Raises: InputError: no such model, folder or option.
    """
    label, what, options = _split(text)
    if what == "bare":
        method = bare_scan(*_numbers(text, options, ()))
    elif what == "jitter":
        method = jittered_scan(*_numbers(text, options, (float, int), least=1))
    elif what == "refined" and len(options) >= 2:
        sigma: float = _numbers(text, options[-1:], (float,))[0]
        method = refined_jitter(":".join(options[:-1]), sigma, device)
    elif what == "scenes" and options:
        method = finished_scenes(Path(":".join(options)))
    elif what in ("scenes", "refined"):
        raise InputError(f"cannot read the method {text!r}: {SYNTAX}")
    else:
        method = model(what, device, **changes | dict(map(_change, options)))
    return replace(method, name=label) if label else method


def parse_methods(texts: Sequence[str], device: str = "cpu", **changes: Any) -> list[Method]:
    """Several methods, each under a name of its own; see `parse_method`.

    Raises: InputError: as of `parse_method`, no method, or two of the same name.
    """
    methods = [parse_method(text, device, **changes) for text in texts]
    names = [method.file_name for method in methods]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not methods:
        remedy = "give them labels, such as first=runs/a/model" if methods else SYNTAX
        raise InputError(
            f"expected methods of different names, got {twice[0] if twice else 'none'}: {remedy}"
        )
    return methods


def _split(text: str) -> tuple[str, str, list[str]]:
    """Label, what, options."""
    match = re.fullmatch(r"(?:([\w.-]+)=)?([^:]+)(?::(.*))?", text)
    if match is None:
        raise InputError(f"cannot read the method {text!r}: {SYNTAX}")
    label, what, options = match.groups()
    return label or "", what, options.split(":") if options else []


def _numbers(text: str, options: list[str], kinds: tuple[type, ...], least: int = 0) -> list[Any]:
    """Options as numbers of these types, at least so many of them."""
    try:
        if not least <= len(options) <= len(kinds):
            raise ValueError
        return [kind(option) for kind, option in zip(kinds, options, strict=False)]
    except ValueError:
        raise InputError(f"cannot read the method {text!r}: {SYNTAX}") from None


def _change(option: str) -> tuple[str, Any]:
    """FIELD=VALUE with the value as JSON or as text, or `coarse`, which is refine=false."""
    if option == "coarse":
        return "refine", False
    name, separator, value = option.partition("=")
    if not separator:
        raise InputError(f"cannot read the option {option!r} of a model: {SYNTAX}")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value
