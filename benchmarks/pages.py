"""Tables in the documentation, made anew from the records: each stands below the command that prints it.

    python benchmarks/pages.py            # or `make tables`

A page holds `<!-- densescan results ... -->` or `<!-- python studies/... -->`, what that command prints, and
`<!-- end -->`. Paths in the commands are relative to the root of the repository.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from densescan.cli import main as densescan
from densescan.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "evaluation.md",
    ROOT / "docs" / "experiments.md",
    ROOT / "src/densescan/weights/bundled/small/README.md",
    ROOT / "docs" / "results.md",
)
BLOCK = re.compile(
    r"(?P<head><!-- (?P<command>(?:densescan results|python studies/).*?) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def filled(text: str) -> str:
    """A page with the output of each of its commands in place of what stood there.

    Raises: RuntimeError: a command fails; what it said is in the message.
    """
    return BLOCK.sub(lambda block: f"{block['head']}\n{printed(block['command'])}\n\n{block['end']}", text)


def printed(command: str) -> str:
    """What a command prints, run in the root of the repository."""
    program, *arguments = shlex.split(command)
    if program == "python":
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
        out, err, status = done.stdout, done.stderr, done.returncode
    else:
        out, err, status = _called(arguments)
    if status:
        raise RuntimeError(f"{command}: {err.strip()}")
    return out.strip()


def _called(arguments: list[str]) -> tuple[str, str, int]:
    """What `densescan ARGUMENTS` says, and its status."""
    out, err = io.StringIO(), io.StringIO()
    with _in_root(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = densescan(arguments)
    return out.getvalue(), err.getvalue(), status


@contextlib.contextmanager
def _in_root() -> Iterator[None]:
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            with atomic_write(page) as temporary:
                temporary.write_text(new, encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)}: {'changed' if new != old else 'as it was'}\n")
