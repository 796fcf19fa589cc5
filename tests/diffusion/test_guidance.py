"""Guidance is a straight line through two predictions."""

import torch

from densescan.diffusion import guide


def test_guidance_is_the_line_through_both_predictions():
    uncond, cond = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0]])
    assert torch.equal(guide(uncond, cond, 0.0), uncond)
    assert torch.equal(guide(uncond, cond, 1.0), cond)
    assert torch.equal(guide(uncond, cond, 3.5), torch.tensor([[4.5, -5.0]]))


def test_gradients_reach_both_predictions():
    uncond, cond = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    guide(uncond, cond, 6.0).sum().backward()
    assert torch.equal(uncond.grad, torch.full((3,), -5.0))
    assert torch.equal(cond.grad, torch.full((3,), 6.0))
