"""Memory that is freed stays with the process, unless its user has said otherwise."""

import subprocess
import sys

import pytest

PAGES = """
import resource
import torch
from densescan.sparse.memory import keep_freed

kept = keep_freed()
for _ in range(8):
    torch.ones(25 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(25 << 20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**told):
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), **told}
    done = subprocess.run([sys.executable, "-c", PAGES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, pages = done.stdout.split()
    return kept == "True", int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is not glibc")
def test_an_array_of_100_mebibytes_is_not_asked_for_page_by_page_again():
    kept, pages = run()
    if not kept:
        pytest.skip("the C library is not glibc")
    assert pages < 2_000
    kept, pages = run(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert pages > 20_000
