"""The completer against the recorded pipeline, its identities, and what it promises: one seed, one scene."""

import copy
import json
import math
import threading
import time
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from densescan import completer as completer_module
from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.data.io import read_scan
from densescan.data.scan import Scan
from densescan.errors import InputError
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.nets.passes import Passes, RecordedPasses
from densescan.nets.refiner import Refiner
from densescan.sparse.backends import room
from densescan.sparse.backends.recording import NoRoom
from densescan.sparse.int8 import multiplies_int8
from densescan.sparse.matmul import multiplies_bfloat16
from densescan.weights.official import from_state_dict

FORM = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local")
CONFIG = CompletionConfig(scan_points=150, repeat=2, steps=2, min_range=1.0)
SAMPLERS = ("sde-dpm-solver++", "dpm-solver++", "ddpm", "ddim", "consistent", "renoise")
STAGES = ["crop", "reduce", "encode", "denoise", "clean", "refine"]


def street(seed: int, count: int = 400) -> np.ndarray:
    """Points (N, 3) [m], float32: a road and a wall within 20 m of the sensor."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-15, -8, -1.8), (15, 8, -1.7), (count, 3))
    points[::3, 1], points[::3, 2] = 8, rng.uniform(-1.7, 2, len(points[::3]))
    return points.astype(np.float32)


A, B = street(1), street(2)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return Networks(ConditionEncoder(FORM), Denoiser(FORM), Refiner(FORM))


@pytest.fixture
def completer(networks):
    return Completer(networks, CONFIG)


@pytest.fixture(scope="module")
def silent():
    """A completer whose networks see no noise and move no point."""
    networks = Networks(ConditionEncoder(FORM), Denoiser(FORM), Refiner(FORM))
    for net in (networks.denoiser, networks.refiner):
        for parameter in net.last.parameters():
            torch.nn.init.zeros_(parameter)
    return Completer(networks, CONFIG)


@pytest.fixture
def count_calls(monkeypatch):
    """(class, method) -> a list that grows by one with each call."""

    def count_calls(owner, method):
        original, calls = getattr(owner, method), []

        def counted(*args, **keywords):
            calls.append(method)
            return original(*args, **keywords)

        monkeypatch.setattr(owner, method, counted)
        return calls

    return count_calls


# The recorded pipeline


def test_equals_the_recorded_pipeline(shared, monkeypatch):
    """Two steps, guidance 3.5, 900 points times 10, with the recorded noise."""
    folder = shared / "reference"
    names = ("net_diff_cr025_weights_fp16.safetensors", "net_refine_cr025_weights_fp16.safetensors")
    networks = from_state_dict(load_file(folder / names[0]) | load_file(folder / names[1]))
    recorded = json.loads((folder / "pipeline_cr025.json").read_text())
    with np.load(folder / "pipeline_cr025.npz") as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    draws = iter([golden["T2.z_init"], *golden["T2.step_noise"]])
    monkeypatch.setattr(
        completer_module, "gaussian", lambda _: lambda like: torch.from_numpy(next(draws))[None]
    )
    monkeypatch.setattr(
        completer_module, "farthest_point_sampling", lambda points, _: torch.arange(len(points))
    )
    scene = Completer(networks)(golden["scan"], steps=2, guidance_scale=recorded["w"], min_range=0.0)
    assert len(scene.coarse) == recorded["T2.n_post"]
    assert len(scene.points) == recorded["T2.refined_rows"]
    # A point whose voxel rounds the other way jumps by centimetres: at most one in a thousand.
    moved = np.abs(scene.coarse - golden["T2.post"]).max(axis=1)
    assert np.quantile(moved, 0.999) < 1e-4
    moved = np.abs(scene.points[:3000] - golden["T2.refined_first3000"]).max(axis=1)
    assert np.quantile(moved, 0.999) < 1e-4
    sums = scene.points.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(sums, recorded["T2.refined_colsum"], rtol=0, atol=0.2)


# What must hold whatever the weights


def test_without_noise_and_motion_the_scene_is_the_scan(silent):
    """lam = 0 and eps_hat = 0 leave every copy where it is: the scene is the cropped scan, cut in height, K times."""
    scene = silent(A, lam=0.0, sampler="consistent", scan_points=10_000, repeat=3)
    distance = np.linalg.norm(A.astype(np.float64), axis=1)
    near = A[(distance > 1) & (distance < 50)]
    z = np.tile(near[:, 2], 3)
    kept = near[(near[:, 2] < z.max()) & (near[:, 2] > z.mean() - 2 * z.std(ddof=1))]
    assert 0 < len(kept) < len(A)
    assert Counter(map(tuple, scene.coarse)) == Counter({tuple(point): 3 for point in kept})
    assert Counter(map(tuple, scene.points)) == Counter({tuple(point): 18 for point in kept})


def test_points_out_of_range_are_left_out_before_and_after(silent):
    far = np.array([[60, 0, 0], [0.5, 0, 0]], np.float32)
    config = {"lam": 0.0, "sampler": "consistent", "scan_points": 10_000}
    with_far, without = silent(np.concatenate([A, far]), **config), silent(A, **config)
    assert np.array_equal(with_far.points, without.points)
    noisy = silent(A, lam=3.0, max_range=18.0, sampler="consistent")
    assert 0 < len(noisy.coarse) < 300
    assert np.linalg.norm(noisy.coarse, axis=1).max() < 18


def test_points_that_are_carried_off_are_spoken_of(silent):
    with pytest.warns(UserWarning, match=r"\d+% of the sampled points were carried off by more than 10 m"):
        silent(A, lam=30.0, sampler="consistent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent(A, lam=1.0, sampler="consistent")


def test_fewer_points_than_asked_for_are_used_whole(completer):
    scene = completer(A[:40], scan_points=18_000)
    assert 0 < len(scene.coarse) <= 2 * 40


def test_the_scan_is_reduced_and_repeated(silent):
    scene = silent(A, lam=0.0, sampler="consistent", scan_points=100, repeat=4)
    counts = Counter(map(tuple, scene.coarse))
    assert set(counts.values()) == {4}
    assert 80 < len(counts) <= 100
    assert set(counts) <= set(map(tuple, A))


# Randomness


def test_no_state_leaks_from_one_scan_to_the_next(completer):
    first, other, again = completer(A), completer(B), completer(A)
    assert np.array_equal(first.points, again.points)
    assert np.array_equal(first.coarse, again.coarse)
    assert not np.array_equal(first.points[:50], other.points[:50])


def test_the_seed_decides_on_the_scene(networks, completer):
    scene = completer(A, seed=7)
    assert np.array_equal(scene.points, Completer(networks, CONFIG)(A, seed=7).points)
    assert not np.array_equal(scene.points[:50], completer(A, seed=8).points[:50])
    assert scene.seed == 7


def test_the_global_generator_is_neither_read_nor_moved(completer):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = completer(A).points
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(first, completer(A).points)


# Recordings


def test_a_scene_without_room_is_computed_anew(completer, monkeypatch):
    """What a recording gave before it was found to be too small is forgotten, and the noise drawn from the start."""
    expected = completer(A)

    class TooSmall(RecordedPasses):
        predictor, refine, checks = Passes.predictor, Passes.refine, 0

        def check(self):
            self.checks += 1
            raise NoRoom

    recorded, forgotten = TooSmall(completer._passes(CONFIG).networks, CONFIG.guidance_scale), []
    monkeypatch.setattr(completer, "_recorded", lambda *_: recorded)
    monkeypatch.setattr(completer._recordings, "forget", forgotten.append)
    assert np.array_equal(completer(A).points, expected.points)
    assert forgotten == [recorded]
    assert recorded.checks == 1
    with recorded.taken:  # by another thread: nobody waits for it
        assert np.array_equal(completer(A).points, expected.points)
    assert recorded.checks == 1


def test_without_memory_for_recordings_scenes_are_computed_plainly(completer, monkeypatch):
    expected = completer(A)

    class TooLarge(RecordedPasses):
        def predictor(self, points):
            raise torch.OutOfMemoryError

    monkeypatch.setattr(completer, "_recorded", lambda plain, _: TooLarge(plain.networks, plain.scale))
    with pytest.warns(UserWarning, match="not enough memory to record"):
        assert np.array_equal(completer(A).points, expected.points)
    assert completer._recordings is None
    monkeypatch.setattr(completer, "_recorded", lambda *_: None)
    monkeypatch.setattr(Passes, "predictor", TooLarge.predictor)
    with pytest.raises(torch.OutOfMemoryError):
        completer(A)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_scenes_are_the_plain_ones_to_the_bit(networks):
    completer, plain = (
        Completer(copy.deepcopy(networks), CONFIG, "cuda", record=record) for record in (True, False)
    )
    for seed in range(4):  # the first runs plainly, the second is recorded, the others are replayed
        found, expected = completer(A, seed=seed), plain(A, seed=seed)
        assert np.array_equal(found.points, expected.points)
        assert np.array_equal(found.coarse, expected.coarse)
    assert len(completer._recordings._kept) == 1
    near = A * np.float32(0.5)  # as many points, fewer voxels, then more
    for scan in (near, A, near):
        assert np.array_equal(completer(scan).points, plain(scan).points)
    streamed = [scene.points for scene in completer.stream([A, near, A])]
    assert all(
        np.array_equal(one, plain(scan).points) for one, scan in zip(streamed, (A, near, A), strict=True)
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scans_that_outgrow_their_recording_are_completed_all_the_same(networks, monkeypatch):
    """Without any margin even a later step of the same scan may."""
    monkeypatch.setattr(room, "_MARGIN", 1.0)
    monkeypatch.setattr(room, "_STEP", 1)
    completer, plain = (
        Completer(copy.deepcopy(networks), CONFIG, "cuda", record=record) for record in (True, False)
    )
    forgotten, forget = [], completer._recordings.forget
    monkeypatch.setattr(
        completer._recordings, "forget", lambda recorded: (forgotten.append(recorded), forget(recorded))
    )
    near = A * np.float32(0.4)  # as many points in fewer voxels
    for scan in (near, near, near, A, A, A):
        assert np.array_equal(completer(scan).points, plain(scan).points)
    assert forgotten


# Cost


def test_the_scan_is_encoded_once_and_the_null_scan_once(completer, count_calls):
    encoded, predicted = count_calls(ConditionEncoder, "forward"), count_calls(Denoiser, "predict")
    completer(A, steps=3)
    assert len(encoded) == 2
    assert len(predicted) == 3, "both branches of a step in one pass"


def test_guidance_one_takes_one_pass_a_step(completer, count_calls):
    encoded, predicted = count_calls(ConditionEncoder, "forward"), count_calls(Denoiser, "predict")
    scene = completer(A, steps=3, guidance_scale=1.0)
    assert len(encoded) == 1
    assert len(predicted) == 3
    guided = completer(A, steps=3, guidance_scale=1.0 + 1e-6)
    assert len(predicted) == 3 + 3
    close = np.abs(guided.coarse[:50] - scene.coarse[:50]).max(axis=1) < 1e-3
    assert close.mean() > 0.9, "both ways to guidance 1 lead to one scene"


def test_every_step_is_reported(completer):
    seen = []
    completer(A, steps=3, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_every_stage_is_timed(completer):
    began = time.perf_counter()
    seconds = completer(A).seconds
    assert list(seconds) == STAGES
    assert min(seconds.values()) > 0
    assert sum(seconds.values()) <= time.perf_counter() - began


# Parameters


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs(completer, sampler):
    scene = completer(A, sampler=sampler, lam=0.3)
    assert len(scene.points) == 6 * len(scene.coarse) > 0
    assert np.isfinite(scene.points).all()
    assert scene.config.sampler == sampler


def test_samplers_get_their_own_parameters(completer):
    scenes = [
        completer(A, refine=False, **changes).points
        for changes in (
            {"sampler": "dpm-solver++"},
            {"sampler": "dpm-solver++", "last_step": "diffusers-new"},
            {"sampler": "sde-dpm-solver++"},
            {"sampler": "ddim"},
            {"sampler": "ddim", "eta": 1.0},
            {"sampler": "consistent"},
            {"sampler": "consistent", "eta": 1.0},
            {"sampler": "renoise"},
            {"sampler": "renoise", "eta": 1.0},
        )
    ]
    shapes_and_starts = {(len(scene), *scene[0].tolist()) for scene in scenes}
    assert len(shapes_and_starts) >= len(scenes) - 1, "consistent and renoise agree where they draw no noise"


def test_the_voxel_size_can_be_overridden(networks, completer):
    own, same, other = (completer(A, voxel_size=size).points for size in (None, FORM.voxel_size, 0.3))
    assert np.array_equal(own, same)
    assert not np.array_equal(own[:50], other[:50])
    assert networks.denoiser.config == networks.refiner.config == FORM, (
        "the networks themselves stay as they are"
    )


def test_refinement_can_be_left_out(networks, completer):
    scene = completer(A, refine=False)
    assert np.array_equal(scene.points, scene.coarse)
    without = Completer(Networks(networks.encoder, networks.denoiser), CONFIG)(A)
    assert np.array_equal(without.points, scene.points)
    refined = completer(A)
    assert np.array_equal(refined.coarse, scene.coarse)
    assert np.abs(refined.points - np.repeat(refined.coarse, 6, axis=0)).max() <= 1 + 1e-5


def test_the_refiner_alone_does_what_it_does_at_the_end(networks, completer):
    scene = completer(A)
    assert np.array_equal(completer.refine(scene.coarse), scene.points)
    with pytest.raises(InputError, match="hold no refiner"):
        Completer(Networks(networks.encoder, networks.denoiser), CONFIG).refine(scene.coarse)


@pytest.mark.skipif(not multiplies_bfloat16(torch.device("cpu")), reason="the processor has no bfloat16")
def test_bfloat16_is_close_to_float32_but_not_equal(completer):
    changes = {
        "sampler": "consistent",
        "steps": 1,
        "guidance_scale": 1.0,
        "refine": False,
        "max_range": 1000.0,
    }
    changes |= {"lam": 0.1}
    single, half = completer(A, **changes), completer(A, bfloat16=True, **changes)
    assert half.points.dtype == np.float32
    assert abs(len(single.points) - len(half.points)) < 0.05 * len(single.points)
    nearest = np.linalg.norm(single.points[:, None] - half.points[None], axis=2).min(axis=1)
    assert np.median(nearest) < 0.05
    assert nearest.max() > 0
    assert half.config.bfloat16


@pytest.mark.skipif(not multiplies_int8(torch.device("cpu")), reason="the processor has no such products")
def test_products_of_8_bits_are_close_to_float32_but_not_equal(completer):
    changes = {"sampler": "consistent", "steps": 1, "guidance_scale": 1.0, "max_range": 1000.0, "lam": 0.1}
    dense = street(5, 3000)  # voxels have neighbours
    changes |= {"scan_points": 2000, "refine": False}
    single, rounded = completer(dense, **changes), completer(dense, int8=True, **changes)
    assert rounded.config.int8
    assert not rounded.config.bfloat16
    nearest = np.linalg.norm(single.points[:, None] - rounded.points[None], axis=2).min(axis=1)
    assert 0 < np.median(nearest) < 0.05


def test_hardware_without_products_of_8_bits_says_so(completer, monkeypatch):
    monkeypatch.setattr("densescan.completer.multiplies_int8", lambda device: False)
    scene = completer(A, int8=True)
    assert not scene.config.int8
    assert np.array_equal(scene.points, completer(A).points)


def test_hardware_without_bfloat16_computes_in_float32_and_says_so(completer, monkeypatch):
    monkeypatch.setattr("densescan.completer.multiplies_bfloat16", lambda device: False)
    scene = completer(A, bfloat16=True)
    assert not scene.config.bfloat16
    assert np.array_equal(scene.points, completer(A).points)


def test_parameters_of_a_call_do_not_stick(completer):
    before = completer(A).points
    changed = completer(A, steps=1)
    assert changed.config == replace(CONFIG, steps=1)
    assert completer.config == CONFIG
    assert np.array_equal(completer(A).points, before)


# Inputs


def test_arrays_of_any_float_and_width_mean_the_same_scan(completer):
    expected = completer(Scan(A)).points
    remission = np.full((len(A), 1), 1e6, np.float32)
    assert np.array_equal(completer(A.astype(np.float64)).points, expected)
    assert np.array_equal(completer(np.hstack([A, remission])).points, expected)
    assert np.array_equal(completer(np.asfortranarray(A)).points, expected)


def test_points_of_an_array_that_are_not_finite_are_counted_and_dropped(completer):
    bad = np.array([[np.nan, 5, 0], [np.inf, 5, 0]], np.float32)
    with pytest.warns(UserWarning, match="dropped 2 of 402 points"):
        scene = completer(np.concatenate([bad, A]))
    assert np.array_equal(scene.points, completer(A).points)


@pytest.mark.parametrize(
    "array", [np.zeros(9), np.zeros((4, 2)), np.zeros((2, 4, 3)), np.array([["a", "b", "c"]])]
)
def test_other_arrays_are_refused(completer, array):
    with pytest.raises(InputError, match=r"expected a scan as an array of numbers \(N, 3\)"):
        completer(array)


def test_the_scan_is_left_as_it_was(completer):
    scan = Scan(A.copy())
    completer(scan)
    assert np.array_equal(scan.points, A)


@pytest.mark.parametrize("kept", [0, 1])
def test_too_few_points_within_range_are_refused(completer, kept):
    far = np.array([[80, 0, 0], [0.1, 0, 0], [5, 0, 0]], np.float32)[: 2 + kept]
    with pytest.raises(
        InputError, match=rf"{kept} of {2 + kept} points lie between 1 and 50 m.*widen the range"
    ):
        completer(far)


def test_a_scene_without_points_is_an_error(silent):
    with pytest.raises(InputError, match="no point of the sampled scene"):
        silent(A, lam=1000.0, sampler="consistent")


def test_a_completer_needs_encoder_and_denoiser(networks):
    with pytest.raises(InputError, match="these weights hold no encoder"):
        Completer(Networks(refiner=networks.refiner))
    with pytest.raises(InputError, match="these weights hold no denoiser"):
        Completer(Networks(encoder=networks.encoder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: 0}, f"{name} must be a whole number") for name in ("steps", "repeat", "scan_points")),
        ({"scan_points": -5}, "scan_points must be a whole number of at least 2, got -5"),
        *(
            ({name: value}, f"{name} must be a finite number, got {value}")
            for name in ("guidance_scale", "eta", "lam", "min_range", "max_range")
            for value in (math.nan, math.inf)
        ),
        *(
            ({"voxel_size": value}, "voxel_size must be positive")
            for value in (0.0, -0.1, math.nan, math.inf)
        ),
        ({"eta": 1.5}, r"eta must lie in \[0, 1\], got 1.5"),
        ({"lam": -1.0}, "lam must be a noise scale of at least 0"),
        ({"min_range": 50.0, "max_range": 3.5}, "0 <= min_range < max_range, got 50.0 to 3.5 m"),
        ({"min_range": -1.0}, "0 <= min_range < max_range"),
        ({"steps": 1001}, "steps must be at most 1000, got 1001"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**63}, "seed must lie in"),
        ({"step": 4}, r"unknown parameter of a completion in \['step'\]; known are scan_points"),
    ],
)
def test_bad_parameters_are_refused_by_name(completer, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        completer(A, **changes)
    assert "\n" not in str(caught.value)


# The result


@pytest.mark.parametrize("ending", [".ply", ".pcd", ".bin", ".npy"])
def test_a_saved_scene_is_read_again(completer, tmp_path, ending):
    scene = completer(A)
    scene.save(tmp_path / f"scene{ending}")
    assert np.array_equal(read_scan(tmp_path / f"scene{ending}").points, scene.points)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_stream_gives_what_calls_give(completer, tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(Completer, "_samples_ahead", ahead)  # as on a processor, and as on a GPU
    np.save(tmp_path / "a.npy", A)
    scenes = completer.stream([tmp_path / "a.npy", B, Scan(A)], seed=3, steps=3)
    for scene, scan in zip(scenes, (A, B, A), strict=True):
        alone = completer(scan, seed=3, steps=3)
        np.testing.assert_array_equal(scene.points, alone.points)
        np.testing.assert_array_equal(scene.coarse, alone.coarse)
        np.testing.assert_array_equal(scene.scan.points, scan)
        assert scene.config == alone.config
        assert list(scene.seconds) == STAGES


def test_a_scan_that_cannot_be_completed_does_not_end_a_stream(completer, tmp_path):
    good, missing, near, last = completer.stream([A, tmp_path / "none.bin", A / 100, B])
    assert len(good.points)
    assert isinstance(missing, InputError)
    assert "none.bin" in str(missing)
    assert isinstance(near, InputError)
    with pytest.raises(InputError, match="points lie between") as alone:
        completer(A / 100)
    assert str(near) == str(alone.value)
    np.testing.assert_array_equal(last.points, completer(B).points)


def test_a_stream_refuses_bad_parameters_at_once(completer):
    with pytest.raises(InputError, match="steps"):
        completer.stream([A], steps=0)
    with pytest.raises(InputError, match="unknown parameter"):
        completer.stream([A], step=1)


def test_a_stream_samples_in_the_thread_of_its_user_on_a_processor(completer, monkeypatch):
    seen, original = set(), Denoiser.forward

    def watched(*args):
        seen.add(threading.current_thread())
        return original(*args)

    monkeypatch.setattr(Denoiser, "forward", watched)
    assert len(list(completer.stream([A, B], guidance_scale=1.0))) == 2
    assert seen == {threading.current_thread()}


def test_a_closed_stream_stops_sampling(completer, monkeypatch):
    monkeypatch.setattr(Completer, "_samples_ahead", True)
    steps = []
    gate = threading.Event()
    original = Denoiser.forward

    def slow(*args):
        steps.append(1)
        if len(steps) > CONFIG.steps:  # of the second scan
            gate.wait(30)
        return original(*args)

    monkeypatch.setattr(Denoiser, "forward", slow)
    before = set(threading.enumerate())
    stream = completer.stream([A, B], guidance_scale=1.0)
    next(stream)
    stream.close()
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert len(steps) <= CONFIG.steps + 1
