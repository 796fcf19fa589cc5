"""Recordings of functions of tensors. On a processor they run anew; what they tell is the same."""

import pytest
import torch

from densescan.sparse.backends import using
from densescan.sparse.backends.room import FIRST_FREE


@pytest.fixture
def record(device):
    """(*sizes) -> a recording that counts the voxels of some levels."""
    from densescan.sparse.backends.levels import voxelise
    from densescan.sparse.backends.recording import Recording

    def function(coords):
        voxels = voxelise(coords).voxels
        return voxels.keys, voxels.coarser.keys

    with using("triton"):
        yield lambda: Recording(function)


@pytest.fixture
def check():
    from densescan.sparse.backends.recording import check

    return check


def line(count, device):
    """So many voxels in a row, of 4,096 points."""
    x = torch.arange(4096, device=device) % count
    return torch.stack((torch.zeros_like(x), x, x, x), dim=1)


def test_each_call_computes_anew(record, check, device):
    recording = record()
    for count in (100, 40, 150):
        keys, coarse = recording(line(count, device))
        assert (keys < FIRST_FREE).sum() == count
        assert (coarse < FIRST_FREE).sum() == count // 2
        assert recording.output[0] is keys
        check(recording)


def test_inputs_are_copied(record, device):
    recording, coords = record(), line(30, device)
    recording(coords)
    before = coords.clone()
    recording(line(60, device))
    assert torch.equal(coords, before)


def test_scenes_that_leave_the_room_are_found(record, check, device):
    from densescan.sparse.backends.recording import NoRoom

    recording = record()
    check(recording)  # nothing was asked for
    recording(line(100, device))
    recording(line(4000, device))
    with pytest.raises(NoRoom):
        check(recording)


@pytest.mark.parametrize("small", [0, 1])
def test_several_recordings_are_looked_at_at_once(record, check, device, small):
    from densescan.sparse.backends.recording import NoRoom

    both = record(), record()
    for recording in both:
        recording(line(100, device))
    check(*both)
    both[small](line(4000, device))
    with pytest.raises(NoRoom):
        check(*both)
    check(*both)  # nothing was asked for since


def test_shapes_are_those_of_the_first_call(record, device):
    recording = record()
    recording(line(100, device))
    for other in (line(100, device)[:7], line(100, device)[:1], line(100, device).int()):
        with pytest.raises(ValueError, match="recorded for"):
            recording(other)


def test_a_first_call_that_fails_leaves_nothing_behind(check, device):
    from densescan.sparse.backends.recording import Recording

    runs = []

    def function(x):
        runs.append(x)
        if len(runs) == 1:
            raise torch.OutOfMemoryError
        return x + 1

    recording = Recording(function)
    with pytest.raises(torch.OutOfMemoryError):
        recording(torch.zeros(2, device=device))
    check(recording)
    assert recording(torch.ones(3, device=device)).tolist() == [2, 2, 2]


def test_maps_that_were_sorted_together_leave_the_memory_with_their_voxels(device):
    import gc
    import weakref

    from densescan.sparse.backends.levels import voxelise
    from densescan.sparse.backends.table import table_of

    with using("triton"):
        voxels = voxelise(line(20, device)).voxels
        table_of(voxels.submanifold)
    keys, table = weakref.ref(voxels.keys), weakref.ref(table_of(voxels.coarser.submanifold))
    gc.disable()
    try:
        del voxels
        assert keys() is None
        assert table() is None
    finally:
        gc.enable()
