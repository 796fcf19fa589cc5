"""Float32 products by oneDNN, in both ways, against float64; and that the permission it takes is given back."""

import threading

import pytest
import torch

from densescan.sparse import onednn

pytestmark = pytest.mark.skipif(not onednn.AVAILABLE, reason="PyTorch has no oneDNN here")
may_allow = pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="PyTorch before 2.9")
would_allow = pytest.mark.skipif(
    not onednn.permission_is_harmless(), reason="this processor would multiply bfloat16"
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(onednn, "THREADS", onednn.Threads())


def precision():
    return torch.backends.mkldnn.matmul.fp32_precision


def out_of_memory(*args, **kwargs):
    raise RuntimeError("out of memory")


def matrices(*batch):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, 1_200, 160, generator=generator), torch.randn(
        *batch, 160, 96, generator=generator
    )


@pytest.mark.parametrize("harmless", [False, pytest.param(True, marks=would_allow)])
@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_every_way_multiplies_float32_exactly(harmless, one, transposed, batch, monkeypatch):
    monkeypatch.setattr(onednn, "permission_is_harmless", lambda: harmless)
    onednn.THREADS.one = one
    a, b = matrices(*batch)
    if transposed:
        a, b = a.mT.contiguous().mT, b.mT.contiguous().mT
    exact, out = a.double() @ b.double(), torch.full((*batch, 1_200, 96), 7.0)
    for product in (onednn.matmul(a, b), onednn.matmul(a, b, out)):
        assert (product.double() - exact).abs().max() < 1e-6 * exact.abs().max()
    assert product is out


@would_allow
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_second_thread_changes_no_bit(batch):
    a, b = matrices(*batch)
    before, during = onednn.matmul(a, b), []

    def multiply():
        onednn.THREADS.enter()
        during.append(onednn.matmul(a, b))

    onednn.THREADS.enter()
    assert onednn.THREADS.one
    thread = threading.Thread(target=multiply)
    thread.start()
    thread.join()
    assert not onednn.THREADS.one
    assert torch.equal(before, during[0])
    assert torch.equal(before, onednn.matmul(a, b))


@would_allow
def test_a_second_thread_waits_until_the_permission_is_given_back():
    before = precision()
    seen = []
    onednn.THREADS.enter()
    with onednn.THREADS.lock:  # as during a product
        thread = threading.Thread(target=lambda: (onednn.THREADS.enter(), seen.append(precision())))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()
    assert seen == [before]


@may_allow
def test_a_processor_that_rounds_to_bfloat16_is_not_allowed_to(monkeypatch):
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out=None: product(a.bfloat16().float(), b))
    assert not onednn.permission_is_harmless.__wrapped__()


@may_allow
@pytest.mark.parametrize("chosen", ["none", "ieee", "tf32"])
def test_the_precision_that_was_chosen_holds_again_afterwards(chosen, monkeypatch):
    monkeypatch.setattr(onednn, "permission_is_harmless", lambda: True)
    before = precision()
    a, b = matrices()
    try:
        torch.backends.mkldnn.matmul.fp32_precision = chosen
        onednn.matmul(a, b)
        assert precision() == chosen
        monkeypatch.setattr(torch, "mm", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            onednn.matmul(a, b)
        assert precision() == chosen
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
