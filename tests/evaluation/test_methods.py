"""Methods: what their scenes are, and how they are named."""

import numpy as np
import pytest
import torch

from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.data.io import write_points
from densescan.data.scan import Scan
from densescan.data.split import Case
from densescan.errors import InputError
from densescan.evaluation import methods
from densescan.evaluation.methods import bare_scan, finished_scenes, jittered_scan, model, together
from densescan.evaluation.naming import parse_method, parse_methods
from densescan.nets.minkunet import NetConfig
from densescan.weights.folder import ModelConfig, build, load, save_model

FORM = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local")
CONFIG = CompletionConfig(scan_points=60, repeat=2, steps=2, sampler="consistent")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny" / "model"
    save_model(folder, build(ModelConfig(FORM, FORM)), CONFIG, "# A tiny model\n")
    return folder


def with_points(case, *points):
    extra = np.array(points, np.float32)
    return Case(case.key, Scan(np.concatenate([case.scan.points, extra])), case.truth)


def test_the_bare_scan_is_cropped_alone(split):
    scene = bare_scan().complete(with_points(split[0], (1.0, 2.0, 0.0), (49.0, 10.1, 0.0)), 0)
    np.testing.assert_array_equal(scene.points, split[0].scan.points)
    assert list(scene.seconds) == ["crop"]


@pytest.mark.parametrize("copies", [10, 60])
def test_jittered_copies_of_the_scan(split, copies):
    case = with_points(split[0], (1.0, 2.0, 0.0))
    scene = jittered_scan(0.2, copies).complete(case, 5)
    offsets = scene.points.reshape(copies, -1, 3) - split[0].scan.points
    assert offsets.mean(axis=(0, 1)) == pytest.approx([0, 0, 0], abs=0.03)
    assert offsets.std(axis=(0, 1)) == pytest.approx([0.2, 0.2, 0.2], rel=0.06)
    assert list(scene.seconds) == ["crop", "reduce", "jitter"]
    np.testing.assert_array_equal(scene.points, jittered_scan(0.2, copies).complete(case, 5).points)
    assert (scene.points != jittered_scan(0.2, copies).complete(case, 6).points).any()


def test_the_jittered_scan_is_an_even_subset(split, monkeypatch):
    monkeypatch.setattr(methods, "JITTER_POINTS", 50)
    points = jittered_scan(0.0).complete(split[0], 0).points
    assert points.shape == (500, 3)
    kept, scan = np.unique(points, axis=0), split[0].scan.points
    gaps = [np.linalg.norm(cloud[:, None] - cloud, axis=-1)[~np.eye(50, dtype=bool)].min()
            for cloud in (kept, scan[:50])]  # fmt: skip
    assert len(kept) == 50
    assert gaps[0] > 5 * gaps[1]


def test_a_scan_out_of_range_has_no_scene(split):
    far = Case("08/000000", Scan(np.full((9, 3), 80, np.float32)), split[0].truth)
    for method in (bare_scan(), jittered_scan(0.1)):
        with pytest.raises(InputError, match=r"no point of the scan lies between 3.5 and 50.0 m"):
            method.complete(far, 0)


def test_finished_scenes_are_found_by_frame(split, tmp_path):
    folder = tmp_path / "done"
    (folder / "08").mkdir(parents=True)
    write_points(folder / "08" / "000001.ply", split[0].scan.points)
    write_points(folder / "000002.npy", split[1].scan.points)
    method = finished_scenes(folder)
    assert (method.name, method.file_name) == ("scenes:done", "scenes-done")
    assert str(tmp_path) not in str(method.options)
    np.testing.assert_array_equal(method.complete(split[1], 0).points, split[0].scan.points)
    scene = method.complete(split[2], 0)
    np.testing.assert_array_equal(scene.points, split[1].scan.points)
    assert scene.seconds == {}


def test_finished_scenes_that_are_missing_or_not_unique_are_refused(split, tmp_path):
    method = finished_scenes(tmp_path)
    with pytest.raises(InputError, match=r"no scene of frame 08/000000 in .*08/000000.ply"):
        method.complete(split[0], 0)
    write_points(tmp_path / "000007.ply", split[0].truth)
    method.complete(split[4], 0)
    twin = Case("08/000007", split[0].scan, split[0].truth)
    with pytest.raises(InputError, match="would count for 09/000007 and 08/000007"):
        method.complete(twin, 0)
    write_points(tmp_path / "000007.bin", split[0].truth)
    with pytest.raises(InputError, match=r"000007.ply and 000007.bin are both there"):
        method.complete(split[4], 0)
    with pytest.raises(InputError, match="which is no folder"):
        finished_scenes(tmp_path / "nowhere")


def test_a_model_completes_as_its_completer_does(split, tiny):
    ours = load(tiny)(split[0].scan, seed=3, steps=1)
    refined = model(tiny, steps=1).complete(split[0], 3)
    coarse = model(tiny, steps=1, refine=False).complete(split[0], 3)
    np.testing.assert_array_equal(refined.points, ours.points)
    np.testing.assert_array_equal(coarse.points, ours.coarse)
    assert set(refined.seconds) == set(ours.seconds)


def test_refined_and_coarse_scenes_are_sampled_once(split, tiny, monkeypatch):
    asked = []
    complete = Completer.__call__

    def counting(self, *args, **options):
        asked.append(options.get("refine"))
        return complete(self, *args, **options)

    expected = load(tiny)(split[0].scan, seed=3, steps=1, eta=0.5).coarse
    monkeypatch.setattr(Completer, "__call__", counting)
    coarse, refined = model(tiny, steps=1, eta=0.5, refine=False), model(tiny, steps=1, eta=0.5)
    apart = coarse.complete(split[1], 3).points
    first, second = refined.complete(split[0], 3), coarse.complete(split[0], 3)
    assert asked == [False, True]
    assert np.array_equal(second.points, expected)
    assert second.seconds == {**first.seconds, "refine": 0.0}
    asked.clear()
    assert np.array_equal(coarse.complete(split[1], 3).points, apart)
    refined.complete(split[1], 3)
    refined.complete(split[1], 4)
    assert asked == [False, True, True], (
        "a coarse scene is never taken for a refined one, nor one of another seed"
    )


def test_a_refined_jitter_is_the_model_without_its_diffusion(split, tiny):
    method = parse_method(f"refined:{tiny}:0.2")
    assert (method.name, method.file_name) == ("refined:tiny:0.2", "refined-tiny-0.2")
    scene = method.complete(split[0], 3)
    jittered = jittered_scan(0.2).complete(split[0], 3).points
    np.testing.assert_array_equal(scene.points, load(tiny).refine(jittered))
    assert len(scene.points) == 6 * len(jittered)
    assert set(scene.seconds) == {"crop", "reduce", "jitter", "refine"}
    assert method.options["weights"] == model(tiny).options["weights"]


def test_methods_that_sample_alike_stand_together(tiny):
    methods = [
        bare_scan(),
        model(tiny, steps=1, refine=False),
        model(tiny, steps=2),
        jittered_scan(0.1),
        model(tiny, steps=1),
    ]
    names = [[method.name for method in group] for group in together(methods)]
    assert names == [["bare"], ["tiny:steps=1", "tiny:steps=1:coarse"], ["tiny:steps=2"], ["jitter:0.1"]]


def test_a_models_options_say_all_that_its_scenes_depend_on(tiny):
    method = model(tiny, steps=1)
    assert method.options["completion"]["steps"] == 1
    assert method.options["completion"]["scan_points"] == 60
    assert len(method.options["weights"]) == 16
    assert str(tiny.parent.parent) not in str(method.options)


def test_names_on_the_command_line(tiny, tmp_path):
    (tmp_path / "a:b").mkdir()
    names = {
        "bare": ("bare", "bare"),
        "jitter:0.2": ("jitter:0.2", "jitter-0.2"),
        "jitter:0.10:60": ("jitter:0.1:60", "jitter-0.1-60"),
        "noise=jitter:0.1": ("noise", "noise"),
        f"scenes:{tmp_path}/a:b": ("scenes:a:b", "scenes-a-b"),
        str(tiny): ("tiny", "tiny"),
        f"{tiny}:coarse": ("tiny:coarse", "tiny-coarse"),
        f"{tiny}:steps=1:sampler=ddim:coarse": (
            "tiny:steps=1:sampler=ddim:coarse",
            "tiny-steps1-samplerddim-coarse",
        ),
        f"ours={tiny}:eta=0.5": ("ours", "ours"),
    }
    parsed = parse_methods(list(names))
    assert [(method.name, method.file_name) for method in parsed] == list(names.values())
    assert parsed[7].options["completion"]["sampler"] == "ddim"
    assert parsed[8].options["completion"]["eta"] == 0.5
    assert parse_method(str(tiny), guidance_scale=2.0).name == "tiny:guidance_scale=2.0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read the method ''"),
        ("bare:1", "cannot read the method 'bare:1': write MODEL"),
        ("jitter", "cannot read the method 'jitter'"),
        ("jitter:big", "cannot read the method 'jitter:big'"),
        ("jitter:0.1:2:3", "cannot read the method"),
        ("jitter:-1", "sigma in metres, got -1.0 m and 10 copies"),
        ("jitter:0.1:0", "got 0.1 m and 0 copies"),
        ("scenes:nowhere", "got nowhere, which is no folder"),
        ("refined:0.1", "cannot read the method 'refined:0.1'"),
        ("refined:nowhere:0.1", "no model nowhere"),
        ("refined:nowhere:much", "cannot read the method"),
        ("scenes", "cannot read the method 'scenes'"),
        ("nothing", "no model nothing"),
        ("MODEL:fine", "cannot read the option 'fine'"),
        ("MODEL:speed=3", "unknown option speed; known are coarse, scan_points"),
        ("MODEL:steps=0", "steps must be"),
    ],
)
def test_names_that_mean_nothing_say_what_does(tiny, text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_method(text.replace("MODEL", str(tiny)))
    assert "\n" not in str(caught.value)


def test_two_methods_of_one_name_need_labels(tiny):
    with pytest.raises(InputError, match="different names, got tiny: give them labels"):
        parse_methods(["bare", str(tiny), str(tiny)])
    assert [method.name for method in parse_methods(["a=bare", "b=bare"])] == ["a", "b"]
    with pytest.raises(InputError, match="got none"):
        parse_methods([])
