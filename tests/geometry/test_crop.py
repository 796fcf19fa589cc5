import json
import math

import numpy as np
import torch

from densescan.geometry.crop import clean_scene, within_range


def test_range_is_strict_on_both_sides():
    points = torch.tensor(
        [[3.5, 0.0, 0.0], [3.6, 0.0, 0.0], [0.0, -49.9, 0.0], [30.0, 40.0, 0.0], [0.0, 0.0, 0.0]]
    )
    assert within_range(points, 3.5, 50.0).tolist() == [False, True, True, False, False]


def test_range_does_not_change_under_rotation():
    generator = torch.Generator().manual_seed(0)
    points = 30 * torch.randn(500, 3, generator=generator)
    turned = points[:, [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0])
    kept = within_range(points, 3.5, 50.0)
    assert 0 < int(kept.sum()) < 500
    assert torch.equal(kept, within_range(turned, 3.5, 50.0))


def test_clean_scene_by_hand():
    # Heights 0, 1, 2, 3: mean 1.5, sample variance 5/3, so the lower limit is -1.082 and with divisor 4 -0.736.
    x_init = torch.tensor([[5.0, 0.0, float(z)] for z in range(4)])
    z_min = 1.5 - 2 * math.sqrt(5 / 3)
    heights = [3.0, 2.9, z_min + 0.01, z_min - 0.01, -0.9]
    points = torch.tensor([[1.0, 0.0, z] for z in heights] + [[50.0, 0.0, 1.0], [49.0, 0.0, 1.0]])
    assert clean_scene(points, x_init, 50.0).tolist() == [False, True, True, False, True, False, True]


def test_clean_scene_reproduces_the_released_pipeline(shared):
    arrays = np.load(shared / "reference" / "pipeline_cr025.npz")
    limits = json.loads((shared / "reference" / "pipeline_cr025.json").read_text())
    sampled = torch.from_numpy(arrays["T2.x"][-1])
    x_init = torch.from_numpy(arrays["scan"]).repeat(10, 1)
    assert float(x_init[:, 2].max()) == limits["T2.post_max_z"]
    assert math.isclose(
        float(x_init[:, 2].mean() - 2 * x_init[:, 2].std()), limits["T2.post_min_z"], rel_tol=1e-6
    )
    kept = sampled[clean_scene(sampled, x_init, 50.0)]
    assert np.array_equal(kept.numpy(), arrays["T2.post"])
