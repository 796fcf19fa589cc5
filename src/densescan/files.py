"""Output files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from densescan.errors import InputError


def check_writable(path: str | Path, endings: Sequence[str] = ()) -> None:
    """Refuse an output path that cannot be written, before anything is computed for it.

    Args: path: the file to be written. endings: file endings allowed, with their dot and in lower case; empty: any.
    Raises: InputError: unknown ending, missing folder, a directory or device in place of a file, no permission.
    """
    path = Path(path)
    if endings and not path.name.lower().endswith(tuple(endings)):
        raise InputError(
            f"cannot write {path}: unknown file ending; name a file ending in {', '.join(endings)}"
        )
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory; name a file in it")
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it is not a regular file; name another file")
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: no permission in {target.parent}; choose another folder")
    if target.exists() and not os.access(target, os.W_OK):
        raise InputError(f"cannot write {path}: the file is write-protected; name another file")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises: InputError: a file is in the way, or no permission.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the folder {folder}: {error.strerror}; choose another place"
        ) from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary file in the folder of `path` to write to; move it to `path` when the block ends well.

    The temporary file keeps the ending of `path`, for writers that choose a format by it. Whatever goes wrong, an
    interrupt included, `path` keeps its old content and no temporary file is left. A symbolic link is written through.

    Args: path: the file to be written.
    Raises: InputError: the path cannot be written, or the block raises OSError (a full disk).
    """
    check_writable(path)
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers replace the file by one that its owner alone may read
        _flush_to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}; free some space or name another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk; errors of a delayed write come up here."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
