"""Memory that is freed stays with the process, unless its user has said otherwise."""

import subprocess
import sys

import pytest

PAGES = """
import resource
import torch
from densescan.sparse.memory import keep_freed

kept, pages = keep_freed(), []
for _ in range(20):  # small arrays that live on may split the first ones
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(25 << 20)
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(pages))
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
