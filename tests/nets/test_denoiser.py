"""The denoiser against the reference, forward and backward; its identities and invariances."""

import copy
import math
from contextlib import contextmanager

import pytest
import torch

from densescan.diffusion.schedule import Schedule
from densescan.losses.denoising import denoising_loss
from densescan.nets.denoiser import PLACES, Denoiser, timestep_embedding
from densescan.nets.encoder import Condition, ConditionEncoder, drop_condition
from densescan.nets.minkunet import embed_points
from densescan.sparse.rows import RowScale

STAGES = {
    "x0": "stem",
    **{f"x{i}": f"stage{i}" for i in range(1, 5)},
    **{f"y{i}": f"up{i}.1" for i in range(1, 4)},
}
FORMS = {
    "released": {},
    "layer norm": {"norm": "layer"},
    "ours": {"norm": "layer", "point_features": "local", "voxel_size": 0.1, "see_scan": True},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


@contextmanager
def stages_of(denoiser):
    """Collects the output of every stage of a forward pass, before it is scaled."""
    found = {}
    hooks = [
        denoiser.get_submodule(module).register_forward_hook(
            lambda _, __, out, name=name: found.update({name: out})
        )
        for name, module in STAGES.items()
    ]
    yield found
    for hook in hooks:
        hook.remove()


@pytest.fixture
def nets(small):
    def nets(**form):
        return small(ConditionEncoder, seed=1, **form), small(Denoiser, seed=2, **form)

    return nets


# The reference


@torch.no_grad()
@pytest.mark.parametrize("t", [999, 300])
@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_reference_noise_of_a_scene(reference, released, t, branch):
    arrays, summary = reference("net_diff_cr025.npz"), reference("net_diff_cr025.json")[f"t{t}.{branch}.lex"]
    encoder, denoiser = released(ConditionEncoder), released(Denoiser)
    cond = encoder(arrays["scan"][None]) if branch == "cond" else encoder.unconditional()
    with stages_of(denoiser) as found:
        eps = denoiser(arrays[f"t{t}.x"][None], torch.tensor([t]), cond)[0]
    torch.testing.assert_close(eps, arrays[f"t{t}.{branch}.lex.out"], rtol=0, atol=1e-4)
    assert eps.mean().item() == pytest.approx(summary["out_mean"], abs=1e-6)
    assert eps.std().item() == pytest.approx(summary["out_std"], abs=1e-6)
    for name, expected in summary["stages"].items():
        check_statistics(found[name], expected)


def check_statistics(stage, expected):
    """The recorded digest of a stage: sums, and the features of 32 voxels."""
    feats, coords = stage.feats.double(), stage.voxels.coords
    assert (len(feats), stage.voxels.stride) == (expected["rows"], expected["stride"])
    assert coords.sum(0).tolist() == expected["C_sum"]
    sums = torch.tensor(expected["F_colsum"], dtype=torch.float64)
    torch.testing.assert_close(feats.sum(0), sums, rtol=1e-5, atol=1e-6 * len(feats))
    assert feats.square().sum().item() == pytest.approx(expected["F_sqsum"], rel=1e-5)
    same = (coords[None] == torch.tensor(expected["sample_C"])[:, None]).all(2)
    assert same.sum(1).tolist() == [1] * len(same)
    sample = torch.tensor(expected["sample_F"], dtype=torch.float64)
    torch.testing.assert_close(feats[same.int().argmax(1)], sample, rtol=0, atol=1e-4)


@torch.no_grad()
def test_reference_noise_and_stages_of_a_batch(reference, released):
    arrays = reference("net_train_tiny.npz")
    encoder, denoiser = released(ConditionEncoder), released(Denoiser)
    with stages_of(denoiser) as found:
        eps = denoiser(arrays["x"].view(2, 480, 3), arrays["t"], encoder(arrays["part"].view(2, 60, 3)))
    torch.testing.assert_close(eps.flatten(0, 1), arrays["eval.batchidx.out"], rtol=0, atol=1e-5)
    for name, stage in found.items():
        assert torch.equal(stage.voxels.coords, arrays[f"eval.stage.{name}.C"].long())
        torch.testing.assert_close(stage.feats, arrays[f"eval.stage.{name}.F"], rtol=1e-5, atol=2e-5)


def digest(tensor):
    """[L2 norm, sum_i g_i cos(0.37 i + 0.1)]"""
    flat = tensor.detach().double().flatten()
    return [
        flat.norm().item(),
        (flat * torch.cos(0.37 * torch.arange(len(flat)).double() + 0.1)).sum().item(),
    ]


@pytest.mark.parametrize(
    ("dtype", "suffix", "tolerance"), [("float32", "", 1e-3), ("float64", "_f64", 1e-10)]
)
def test_reference_training_step(reference, released, dtype, suffix, tolerance):
    """The teacher's loss, in training mode: output, gradients of points and parameters, running statistics.

    In float64 both agree to rounding; in float32 the reference is itself 6e-5 away from that, in norms of gradients,
    and the number of threads moves single outputs by 3e-5.
    """
    arrays = reference("net_train_tiny.npz")
    recorded = reference("net_train_tiny.json")["train"][f"torch.{dtype}"]
    wide = getattr(torch, dtype)
    nets = {"partial_enc.": released(ConditionEncoder), "model.": released(Denoiser)}
    encoder, denoiser = (net.to(wide).train() for net in nets.values())
    x_t = arrays["x"].to(wide).view(2, 480, 3).detach().requires_grad_()
    eps_hat = denoiser(x_t, arrays["t"], encoder(arrays["part"].to(wide).view(2, 60, 3)))
    loss = denoising_loss(eps_hat, arrays["noise"].to(wide), prior_weight=5.0)
    loss.total.backward()

    assert loss.total.item() == pytest.approx(recorded["loss"], rel=0.01 * tolerance)
    torch.testing.assert_close(eps_hat, arrays[f"train.out{suffix}"], rtol=0, atol=0.1 * tolerance)
    grad, expected = x_t.grad.flatten(0, 1), arrays[f"train.grad_x{suffix}"]
    torch.testing.assert_close(grad, expected, rtol=0, atol=tolerance * expected.abs().max().item())
    grads = {p + name: w.grad for p, net in nets.items() for name, w in net.named_parameters()}
    check_digests(grads, recorded["grads"], tolerance)
    buffers = {p + name: b for p, net in nets.items() for name, b in net.named_buffers() if "running" in name}
    check_digests(buffers, recorded["buffers_after"], 0.1 * tolerance)


def check_digests(tensors, recorded, tolerance):
    assert tensors.keys() == recorded.keys()
    for name, tensor in tensors.items():
        expected = recorded[name]
        assert digest(tensor) == pytest.approx(expected, abs=tolerance * expected[0]), name


# Identities


def test_time_is_embedded_in_sines_then_cosines():
    t, dim = torch.tensor([0, 1, 300, 999]), 24
    freqs = [math.exp(-i * math.log(10_000) / 11) for i in range(12)]
    rows = [[f(s * w) for f in (math.sin, math.cos) for w in freqs] for s in t.tolist()]
    torch.testing.assert_close(timestep_embedding(t, dim), torch.tensor(rows), rtol=0, atol=1e-4)
    assert freqs[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize("form", [{}, {"norm": "layer"}])
def test_evaluating_once_per_condition_voxel_changes_nothing(nets, cloud, form, monkeypatch):
    """The plain network: gather the condition first, then run every MLP for every scene voxel."""
    encoder, denoiser = nets(**form)
    x_t, t, cond = cloud(2, 200, seed=3), torch.tensor([700, 120]), encoder(cloud(2, 60))
    eps = denoiser(x_t, t, cond)
    visited = []

    def plain(place, voxels, *_):
        visited.append(place)
        q, p = voxels.coords, cond.voxels.coords
        squared = (q[:, None, 1:] - p[None, :, 1:]).square().sum(2)
        squared[q[:, None, 0] != p[None, :, 0]] = 1 << 40
        rows = (squared * len(p) + torch.arange(len(p))).argmin(1)
        latent = denoiser.get_submodule(f"latent_{place}")(cond.feats[rows])
        time = timestep_embedding(t, denoiser.config.channels[8]).to(latent.dtype)
        temp = denoiser.get_submodule(f"{place}_temp")(time[voxels.batch])
        parts = [temp, latent] if place == "up1" else [latent, temp]
        weight = denoiser.get_submodule(f"latemp_{place}")(torch.cat(parts, 1))
        return RowScale(weight, torch.arange(len(weight)))

    monkeypatch.setattr(denoiser, "_scale", plain)
    torch.testing.assert_close(eps, denoiser(x_t, t, cond), rtol=1e-9, atol=1e-11)
    assert tuple(visited) == PLACES


@torch.no_grad()
@every_form
def test_guidance_equals_two_predictions_combined(nets, cloud, form):
    encoder, denoiser = nets(**form)
    x_t, t = cloud(2, 200, seed=3), torch.tensor([700, 120])
    cond, uncond = encoder(cloud(2, 60)), encoder.unconditional(2)
    with_scan, without = denoiser(x_t, t, cond), denoiser(x_t, t, uncond)
    assert (with_scan - without).abs().max() > 1e-3
    guided = denoiser.guided(x_t, t, cond, uncond, 6.0)
    torch.testing.assert_close(guided, without + 6.0 * (with_scan - without), rtol=1e-9, atol=1e-11)


@torch.no_grad()
@every_form
def test_guidance_runs_the_stem_once_where_it_sees_no_condition(nets, cloud, form):
    encoder, denoiser = nets(**form)
    runs = []
    denoiser.stem.register_forward_hook(lambda *_: runs.append(1))
    denoiser.guided(cloud(1, 50), torch.tensor([5]), encoder(cloud(1, 60)), encoder.unconditional(), 3.5)
    assert len(runs) == (2 if form.get("see_scan") else 1)


@torch.no_grad()
@every_form
def test_a_batch_with_dropped_conditions_equals_each_cloud_alone(nets, cloud, form):
    encoder, denoiser = nets(**form)
    x_t, scans, t = cloud(3, 120, seed=3), cloud(3, 60), torch.tensor([700, 120, 5])
    cond = drop_condition(encoder(scans), encoder.unconditional(), torch.tensor([False, True, False]))
    eps = denoiser(x_t, t, cond)
    for b in range(3):
        alone = encoder.unconditional() if b == 1 else encoder(scans[b : b + 1])
        if form.get("see_scan") and b == 1:  # as many points as the other scans, all at the origin
            alone = Condition(alone.feats, alone.voxels, alone.scan.expand(-1, 60, -1))
        torch.testing.assert_close(eps[b : b + 1], denoiser(x_t[b : b + 1], t[b : b + 1], alone))


# Invariances


@torch.no_grad()
@every_form
def test_noise_does_not_depend_on_order_or_batch(nets, cloud, form):
    encoder, denoiser = nets(**form)
    x_t, scans, t = cloud(2, 300, seed=3, spread=0.5), cloud(2, 60), torch.tensor([700, 120])
    assert len(embed_points(x_t, denoiser.config).tensor.voxels) < 590, "some voxels hold several points"
    eps = denoiser(x_t, t, encoder(scans))
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denoiser(x_t[:, shuffle], t, encoder(scans.flip(1))), eps[:, shuffle])
    torch.testing.assert_close(denoiser(x_t[1:], t[1:], encoder(scans[1:])), eps[1:])
    torch.testing.assert_close(denoiser(x_t.flip(0), t.flip(0), encoder(scans.flip(0))), eps.flip(0))


@torch.no_grad()
@pytest.mark.parametrize(("norm", "independent"), [("layer", True), ("batch", False)])
def test_layer_norm_alone_sees_no_batch_in_training(nets, cloud, norm, independent):
    encoder, denoiser = (net.train() for net in nets(norm=norm))
    x_t, scans, t = cloud(2, 200, seed=3), cloud(2, 200), torch.tensor([700, 120])
    together = denoiser(x_t, t, encoder(scans))[:1]
    alone = denoiser(x_t[:1], t[:1], encoder(scans[:1]))
    assert torch.allclose(together, alone, rtol=1e-7, atol=1e-9) == independent


@torch.no_grad()
def test_every_cloud_has_its_own_time(nets, cloud):
    encoder, denoiser = nets()
    x_t, cond = cloud(1, 200, seed=3).expand(2, -1, -1), encoder(cloud(1, 60).expand(2, -1, -1))
    eps = denoiser(x_t, torch.tensor([700, 120]), cond)
    assert (eps[0] - eps[1]).abs().max() > 1e-3
    torch.testing.assert_close(eps.flip(0), denoiser(x_t, torch.tensor([120, 700]), cond))


@every_form
def test_two_runs_are_bit_identical(nets, cloud, form):
    encoder, denoiser = (net.float().train() for net in nets(**form))
    x_t, scans, t = cloud(2, 400, seed=3).float(), cloud(2, 200).float(), torch.tensor([700, 120])
    weights = [*encoder.parameters(), *denoiser.parameters()]
    runs = []
    for _ in range(2):
        eps = denoiser(x_t, t, encoder(scans))
        runs.append((eps, *torch.autograd.grad(eps.square().sum(), weights)))
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@torch.no_grad()
@every_form
def test_reduced_precision_stays_close(nets, cloud, form):
    encoder, denoiser = (net.float() for net in nets(**form))
    x_t, scans, t = cloud(2, 300, seed=3).float(), cloud(2, 200).float(), torch.tensor([700, 120])
    exact = denoiser(x_t, t, encoder(scans))
    with torch.autocast("cpu", torch.bfloat16):
        reduced = denoiser(x_t, t, encoder(scans))
    error = ((reduced.float() - exact).norm() / exact.norm()).item()
    assert 0 < error < 0.05


# Form


@every_form
def test_every_parameter_gets_a_gradient(nets, cloud, form):
    encoder, denoiser = (net.train() for net in nets(**form))
    x_t = cloud(2, 300, seed=3).requires_grad_()
    eps = denoiser(x_t, torch.tensor([700, 120]), encoder(cloud(2, 200)))
    (eps * torch.randn(eps.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for net in (encoder, denoiser):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert (x_t.grad.abs().amax(2) > 0).float().mean() > 0.9


@torch.no_grad()
def test_points_of_the_scan_are_seen_but_get_no_noise(nets, cloud):
    encoder, denoiser = nets(**FORMS["ours"])
    x_t, t, cond = cloud(2, 200, seed=3), torch.tensor([700, 120]), encoder(cloud(2, 60))
    eps = denoiser(x_t, t, cond)
    assert eps.shape == x_t.shape
    elsewhere = Condition(cond.feats, cond.voxels, cond.scan + 0.3)
    assert (denoiser(x_t, t, elsewhere) - eps).abs().max() > 1e-3, "they are seen beside the condition"
    shuffled = Condition(cond.feats, cond.voxels, cond.scan.flip(1))
    torch.testing.assert_close(denoiser(x_t, t, shuffled), eps)


@torch.no_grad()
def test_the_released_form_knows_the_scan_through_the_condition_alone(nets, cloud):
    encoder, denoiser = nets()
    x_t, t, cond = cloud(2, 200, seed=3), torch.tensor([700, 120]), encoder(cloud(2, 60))
    elsewhere = Condition(cond.feats, cond.voxels, cond.scan + 0.3)
    assert torch.equal(denoiser(x_t, t, elsewhere), denoiser(x_t, t, cond))


def test_gradients_of_the_denoiser_are_finite_differences(nets, cloud):
    """Within a voxel: the rounding of points is not differentiated."""
    encoder, denoiser = nets(norm="layer", voxel_size=0.5, see_scan=True)
    with torch.no_grad():
        cond = encoder(cloud(1, 12))
    x_t = (torch.round(cloud(1, 6) / 0.5) * 0.5 + 0.1).requires_grad_()
    feats = cond.feats.requires_grad_()

    def run(points, feats):
        return denoiser(points, torch.tensor([300]), Condition(feats, cond.voxels, cond.scan))

    assert torch.autograd.gradcheck(run, (x_t, feats), fast_mode=True)


@torch.no_grad()
def test_a_displacement_is_the_way_back_to_x_0(nets, cloud):
    """The same weights that give a number as noise give it as metres from the noisy point to x_0: x_0 is x_t plus what
    the last layer says, at every t."""
    schedule, t = Schedule(), torch.tensor([999, 3])
    encoder, noise = nets(norm="layer", voxel_size=0.2)
    _, displacement = nets(norm="layer", voxel_size=0.2, predicts="displacement")
    displacement.load_state_dict(noise.state_dict())
    x_t, cond = cloud(2, 200, seed=3), encoder(cloud(2, 60))
    said, eps_hat = noise(x_t, t, cond), displacement(x_t, t, cond)
    sigma = schedule.sigma_t[t][:, None, None]
    torch.testing.assert_close(x_t - sigma * eps_hat, x_t + said, rtol=0, atol=1e-5)
    torch.testing.assert_close(displacement.error_scale(t), schedule.sigma_t[t])
    assert torch.equal(noise.error_scale(t), torch.ones(2))


@torch.no_grad()
@every_form
def test_a_prepared_condition_changes_nothing(nets, form, cloud):
    encoder, denoiser = nets(**form)
    denoiser = copy.deepcopy(denoiser)  # its weights change below
    cond, points, t = encoder(cloud(1, 60)), cloud(1, 120, seed=3), torch.tensor([300])
    prepared = denoiser.prepared(cond)
    assert prepared.latents.keys() == set(PLACES)
    assert torch.equal(denoiser(points, t, prepared), denoiser(points, t, cond))
    for place in PLACES:  # and is really used
        denoiser.get_submodule(f"latent_{place}")[2].weight.zero_()
    assert not torch.equal(denoiser(points, t, prepared), denoiser(points, t, cond))
