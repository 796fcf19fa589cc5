"""Pairs: the start of Eq. 19, and a ranking in which the edge of a crop does not decide."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from densescan.completion import CompletionConfig
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.metrics.jsd import JensenShannon3D
from densescan.training.batch import Batch
from densescan.training.crop_distance import chamfer_in_crop, within
from densescan.training.pairs import ChamferInCrop, Disc, MetricName, PairConfig, paired_samples, rank_pairs
from densescan.training.student import LastStepSampler, crop_points

MakeBatch = Callable[..., Batch]
METRICS = ("cd", "jsd", "jsd-bev", "emd", "iou")


def near(batch: Batch) -> Tensor:
    """The truth itself, a little displaced."""
    return batch.crop.truth + 0.02 * batch.draws.normal("near", batch.crop.truth)


def far(batch: Batch) -> Tensor:
    """The truth, shifted and torn."""
    return batch.crop.truth + 0.4 + 0.8 * batch.draws.normal("far", batch.crop.truth)


@pytest.mark.parametrize("metric", METRICS)
def test_the_nearer_sample_wins_by_every_metric(batch: Batch, metric: MetricName) -> None:
    one, other = near(batch), far(batch)
    ranking = rank_pairs(batch, one, other, metric)
    swapped = rank_pairs(batch, other, one, metric)
    assert ranking.first_wins.tolist() == [True, True]
    assert swapped.first_wins.tolist() == [False, False]
    assert ranking.kept.all()
    assert ranking.share == 1.0
    assert torch.equal(ranking.winners(one, other), one)
    assert torch.equal(ranking.losers(one, other), other)
    assert torch.equal(swapped.winners(other, one), one)
    better, worse = ranking.figures[f"{metric}_w"], ranking.figures[f"{metric}_l"]
    assert better > worse if metric == "iou" else better < worse
    assert ranking.figures["margin"] == pytest.approx(abs(better - worse))
    assert (ranking.figures["first_wins"], swapped.figures["first_wins"]) == (1.0, 0.0)


def test_each_crop_has_a_ranking_of_its_own(batch: Batch) -> None:
    one, other = near(batch), far(batch)
    first, second = torch.stack((one[0], other[1])), torch.stack((other[0], one[1]))
    ranking = rank_pairs(batch, first, second, "cd")
    assert ranking.first_wins.tolist() == [True, False]
    assert torch.equal(ranking.winners(first, second), one)
    assert ranking.figures["first_wins"] == 0.5
    alone = [
        rank_pairs(part, first[i : i + 1], second[i : i + 1], "cd").figures
        for i, part in enumerate(batch.singly())
    ]
    for name, value in ranking.figures.items():
        assert value == pytest.approx((alone[0][name] + alone[1][name]) / 2), name


def test_the_distance_is_that_of_the_crop(batch: Batch) -> None:
    """Against all distances by hand, and against the distance that validation tells."""
    one, scene = batch.singly()[0], far(batch)[0]
    crop = Disc(one.crop.centre[0].numpy(), one.crop.radius[0].item())
    truth = one.crop.truth[0]
    inside, true_inside = within(scene, one).numpy(), within(truth, one).numpy()
    assert 0 < inside.mean() < 1
    assert 0 < true_inside.mean() < 1
    pairs = cdist(scene.numpy(), truth.numpy())
    expected = (pairs.min(1)[inside].mean() + pairs.min(0)[true_inside].mean()) / 2
    found = ChamferInCrop(crop).measure(scene.numpy(), truth.numpy())
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(chamfer_in_crop(scene, one).total.item(), rel=1e-3)
    assert rank_pairs(one, scene[None], scene[None] + 5, "cd").figures["cd_w"] == found


@pytest.mark.parametrize("metric", METRICS)
def test_what_lies_beyond_the_radius_does_not_decide(batch: Batch, metric: MetricName) -> None:
    """Points that leave the crop, however far, are neither punished nor rewarded."""
    one, scene = batch.singly()[0], near(batch)[:1]
    kept = scene[:, 100:]
    values = []
    for distance in (40.0, 60.0):
        away = scene[:, :100] + torch.tensor([distance, 0.0, 0.0])
        torn = torch.cat((away, kept), dim=1)
        values.append(rank_pairs(one, torn, far(batch)[:1], metric).figures[f"{metric}_w"])
    assert values[0] == values[1]
    alone = rank_pairs(one, kept, far(batch)[:1, 100:], metric).figures[f"{metric}_w"]
    assert values[0] == pytest.approx(alone)


def test_ties_and_failures_are_left_out_and_counted(batch: Batch) -> None:
    one, elsewhere = near(batch), near(batch) + torch.tensor([400.0, 0.0, 0.0])
    first, second = one, torch.stack((one[0], elsewhere[1]))
    ranking = rank_pairs(batch, first, second, "cd")
    assert ranking.kept.tolist() == [False, False]
    assert ranking.share == 0.0
    assert ranking.figures == {
        "cd_w": 0.0,
        "cd_l": 0.0,
        "margin": 0.0,
        "first_wins": 0.0,
        "pairs/ties": 0.5,
        "pairs/failures": 0.5,
    }
    second = torch.stack((far(batch)[0], elsewhere[1]))
    ranking = rank_pairs(batch, first, second, "cd")
    assert ranking.kept.tolist() == [True, False]
    kept = rank_pairs(batch.singly()[0], first[:1], second[:1], "cd").figures
    assert ranking.figures["cd_w"] == pytest.approx(kept["cd_w"] / 2), "left out counts as zero"
    assert ranking.figures["pairs/failures"] == 0.5


def test_a_metric_that_breaks_is_counted(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (ZeroDivisionError("no"), InputError("no"), None):

        def broken(self: object, pred: np.ndarray, truth: np.ndarray, wrong: object = wrong) -> float:
            if isinstance(wrong, Exception):
                raise wrong
            return float("nan")

        monkeypatch.setattr(JensenShannon3D, "measure", broken)
        ranking = rank_pairs(batch, near(batch), far(batch), "jsd")
        assert not ranking.kept.any()
        assert ranking.figures["pairs/failures"] == 1.0


def samples(batch: Batch, config: PairConfig, name: str = "sde-dpm-solver++") -> tuple[Tensor, ...]:
    """The starts, the samples and the noise on the way, of a predictor that sees no noise."""
    sampler = LastStepSampler(CompletionConfig(sampler=name), Schedule())  # type: ignore[arg-type]
    x_init = crop_points(batch, 150, 2)
    first, second = paired_samples(sampler, lambda x_t, t: 0 * x_t, x_init, batch, 2, config)
    assert torch.equal(first.x_init, x_init)
    return first.x_T - x_init, second.x_T - x_init, torch.stack(list(first.noises) + list(second.noises))


def test_starts_differ_in_scale_and_if_asked_in_noise(make_batch: MakeBatch) -> None:
    first, second, on_the_way = samples(make_batch(), PairConfig(lams=(1.0, 1.1), same_noise=True))
    torch.testing.assert_close(second, 1.1 * first)
    assert torch.equal(*on_the_way.chunk(2)), "they share the noise of later steps"
    own, other, on_the_way = samples(make_batch(), PairConfig(lams=(1.0, 1.5)))
    torch.testing.assert_close(own, first, msg="the first sample is the same")
    assert other.std() == pytest.approx(1.5, rel=0.05)
    assert abs(torch.corrcoef(torch.stack((own.flatten(), other.flatten())))[0, 1]) < 0.1
    assert not torch.equal(*on_the_way.chunk(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lams": (1.0, 0.0)}, "expected lams above 0"),
        ({"lams": (1.0, 1.0), "same_noise": True}, "different ones for the same noise"),
    ],
)
def test_impossible_pairs_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PairConfig(**options)  # type: ignore[arg-type]


def test_an_unknown_metric_is_refused() -> None:
    config = PairConfig()
    object.__setattr__(config, "metric", "rmse")  # as it comes where nobody checks types
    with pytest.raises(InputError, match="unknown metric 'rmse': known are cd, jsd"):
        config.__post_init__()
