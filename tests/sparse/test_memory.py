"""Memory that is freed stays with the process, unless it is too much, or its user has said otherwise."""

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


FREE = """
import torch
from densescan.sparse.memory import give_back, keep_freed

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

keep_freed()
for mebibytes in (200, 1_200):
    arrays = [torch.ones(25 << 18) for _ in range(mebibytes // 25)]
    del arrays
    before = resident()
    print(give_back(), before - resident())
"""


def run(script=PAGES, **told):
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), **told}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(said == "True", int(number)) for said, number in lines]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is not glibc")
def test_an_array_of_100_mebibytes_is_not_asked_for_page_by_page_again():
    ((kept, pages),) = run()
    if not kept:
        pytest.skip("the C library is not glibc")
    assert pages < 2_000
    ((kept, pages),) = run(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert pages > 20_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is not glibc")
def test_much_that_is_free_is_given_back():
    few, many = run(FREE)
    if not many[0]:
        pytest.skip("the C library is not glibc, or older than 2.33")
    assert few == (False, 0)
    assert many[1] > 1_000
    assert run(FREE, MALLOC_ARENA_MAX="1") == [(False, 0)] * 2
