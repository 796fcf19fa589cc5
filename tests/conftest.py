"""Shared test set-up: annotations are checked at run time, and reference data is found where it exists."""

import os
from pathlib import Path

# One thread, here and in the processes that tests start: small networks are slower with two, which wait for each other,
# and sums of two threads differ in their last bits from those of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from jaxtyping import install_import_hook

if not torch.cuda.is_available():  # Triton reads this when it is imported: its kernels then run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# Every jaxtyping annotation of the package is enforced while the tests run, but those of modules whose functions a pass
# of a network calls thousands of times: training tests would take half as long again. To name a package is to name all
# that is in it, so those that hold such modules are left out.
_UNCHECKED = {f"densescan.sparse.{name}" for name in ("chunks", "matmul", "onednn", "scratch")}
_ROOT = Path(__file__).resolve().parents[1] / "src"
_MODULES = {
    ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (_ROOT / "densescan").rglob("*.py")
}
install_import_hook(
    sorted(m for m in _MODULES if not any(f"{name}.".startswith(f"{m}.") for name in _UNCHECKED)),
    "beartype.beartype",
)

SHARED = Path(os.environ.get("DENSESCAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference arrays and real scans; the test is skipped where it is absent."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"needs the reference data folder, looked in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder with tiny trees of each data set, all of one simulated drive."""
    return Path(__file__).resolve().parent / "fixtures"
