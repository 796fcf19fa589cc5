"""Float32 products by oneDNN, in both ways, against float64; and that the permission it takes is given back."""

import threading

import pytest
import torch

from densescan.sparse import onednn

pytestmark = pytest.mark.skipif(not onednn.AVAILABLE, reason="PyTorch has no oneDNN here")
may_allow = pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="PyTorch before 2.9")


def precision():
    return torch.backends.mkldnn.matmul.fp32_precision


def out_of_memory(*args, **kwargs):
    raise RuntimeError("out of memory")


def matrices(*batch):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, 1_200, 160, generator=generator), torch.randn(
        *batch, 160, 96, generator=generator
    )


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_both_ways_multiply_float32_exactly(allowed, transposed, batch, monkeypatch):
    if allowed and not onednn.permission_is_harmless():
        pytest.skip("this processor would multiply bfloat16")
    monkeypatch.setattr(onednn, "permission_is_harmless", lambda: allowed)
    a, b = matrices(*batch)
    if transposed:
        a, b = a.mT.contiguous().mT, b.mT.contiguous().mT
    exact, out = a.double() @ b.double(), torch.full((*batch, 1_200, 96), 7.0)
    for product in (onednn.matmul(a, b), onednn.matmul(a, b, out)):
        assert (product.double() - exact).abs().max() < 1e-6 * exact.abs().max()
    assert product is out


@may_allow
def test_a_processor_that_rounds_to_bfloat16_is_not_allowed_to(monkeypatch):
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: product(a.bfloat16().float(), b))
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


@may_allow
def test_threads_that_overlap_give_the_permission_back_once():
    before = precision()
    entered, go_on = threading.Event(), threading.Event()

    def hold():
        with onednn._PERMISSION:
            entered.set()
            go_on.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait(10)
    with onednn._PERMISSION:
        assert precision() == "bf16"
    assert precision() == "bf16"  # the other one is still inside
    go_on.set()
    other.join()
    assert precision() == before
