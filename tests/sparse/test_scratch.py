"""Memory that is used again."""

import threading

import torch

from densescan.sparse.scratch import Scratch


def test_arrays_have_the_type_and_shape_asked_for():
    scratch = Scratch()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for shape in ((0, 4), (3, 5), (100, 2)):
            room = scratch.like(torch.zeros(1, dtype=dtype), *shape)
            assert (room.dtype, room.shape, room.is_contiguous()) == (dtype, shape, True)
            room.fill_(1)


def test_memory_is_kept_and_grows():
    scratch, x = Scratch(), torch.zeros(1)
    large = scratch.like(x, 1_000)
    assert scratch.like(x.bfloat16(), 10, 20).data_ptr() == large.data_ptr()
    assert scratch.like(x, 2_000).untyped_storage().nbytes() == 8_000
    assert scratch.like(x, 10).untyped_storage().nbytes() == 8_000


def test_what_was_made_in_inference_mode_can_be_written_to_outside():
    scratch, x = Scratch(), torch.zeros(1)
    with torch.inference_mode():
        scratch.like(x, 8).fill_(1)
    room = scratch.like(x, 8)
    room.fill_(2)
    assert not room.is_inference()
    (room * torch.ones(8, requires_grad=True)).sum().backward()


def test_threads_have_memory_of_their_own():
    scratch, x, found = Scratch(), torch.zeros(1), []
    thread = threading.Thread(target=lambda: found.append(scratch.like(x, 50)))
    mine = scratch.like(x, 50)
    thread.start()
    thread.join()
    assert found[0].data_ptr() != mine.data_ptr()
