"""One record of several, made by processes or machines that shared the frames of a split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from densescan.errors import InputError
from densescan.evaluation.records import Header, Run, describe_split, differences, read_run, write_run


def merge(paths: Sequence[Path], output: Path) -> Run:
    """Write one record with the frames of all, in the order of their keys: how a run was shared out changes no frame.

    Args: paths: records of one method on parts of one split, such as those of `--sequences`. output: in an existing
        folder. The environment of the first record is kept; each row has its own commit and hardware.
    Raises: InputError: records of different methods, splits, seeds or metrics; a frame in two of them; a file that is
        no record, or an output that exists.
    """
    if output.exists():
        raise InputError(f"{output} is there already: remove it, or merge into another folder")
    runs = [read_run(path) for path in paths]
    first = runs[0]
    owner: dict[str, Path] = {}
    for run in runs:
        for name, mine, other in differences(_shared(run.header), _shared(first.header)):
            raise InputError(
                f"{run.path} has {name} = {mine}, {first.path} has {other}: merge records of one method on one split"
            )
        for key in run.keys:
            if key in owner:
                raise InputError(
                    f"{owner[key]} and {run.path} both hold {key}: give each run frames of its own"
                )
            owner[key] = run.path
    rows = sorted((row for run in runs for row in run.rows), key=lambda row: row.key)
    split = describe_split(first.header.split["name"], [row.key for row in rows])
    write_run(output, replace(first.header, split=split), rows)
    return read_run(output)


def _shared(header: Header) -> Header:
    """What must be the same in all parts: frames differ."""
    return replace(header, split={"name": header.split["name"]})
