"""The denoiser: predicts the noise of every point of a noisy scene, given a scan."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from densescan.diffusion.guidance import guide
from densescan.diffusion.schedule import Schedule
from densescan.nets.encoder import Condition
from densescan.nets.matching import nearest_voxel
from densescan.nets.minkunet import NetConfig, UNet, VoxelisedPoints, embed_points
from densescan.sparse.functional import linear
from densescan.sparse.matmul import with_repeating_rows
from densescan.sparse.modules import Linear
from densescan.sparse.rows import RowScale, gather
from densescan.sparse.tensor import SparseTensor, Voxels

# Where the condition scales features:
PLACES = ("stage1", "stage2", "stage3", "stage4", "up1", "up2", "up3", "up4")
NARROW_PLACES = ("up3", "up4")  # where the released MLPs are as wide inside as the features they scale
TIME_BEFORE_LATENT = "up1"  # the released network has (time, latent) here and (latent, time) elsewhere


def timestep_embedding(t: Int[Tensor, " B"], dim: int) -> Float[Tensor, "B D"]:
    """Sines then cosines of t at dim / 2 frequencies from 1 down to 1 / 10,000.

    Source: the released networks, whose frequencies are float64 values rounded once.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float64, device=t.device) / (half - 1)
    freqs = torch.exp(-math.log(10_000) * exponents).float()
    angles = t.float()[:, None] * freqs
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _mlp(c_in: int, c_hidden: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(Linear(c_in, c_hidden), nn.LeakyReLU(0.1), Linear(c_hidden, c_out))


@dataclass
class NoisyScene:
    """Voxels, kernel maps and the stem's features. In the released form they see no condition, and both guidance
    branches share them."""

    points: VoxelisedPoints
    stem: SparseTensor


class _Guides:
    """The conditions of all branches G, their rows one after another, and which rows guide the voxels of a level."""

    def __init__(self, conds: tuple[Condition, ...]) -> None:
        self.conds = conds
        self.batch = _joined([cond.voxels.batch for cond in conds])
        self._rows: dict[Voxels, Tensor] = {}

    def rows(self, voxels: Voxels) -> Int[Tensor, "V *G"] | None:
        """Rows of the nearest condition voxels, found once a level. None: there is one row."""
        if len(self.batch) == 1:
            return None
        if voxels not in self._rows:
            found, first = [], 0
            for cond in self.conds:
                found.append(_rows_from(first, voxels, cond.voxels))
                first += len(cond.voxels)
            self._rows[voxels] = found[0] if len(found) == 1 else torch.stack(found, dim=1)
        return self._rows[voxels]


def _rows_from(first: int, voxels: Voxels, targets: Voxels) -> Int[Tensor, " V"]:
    """Rows of the nearest targets, which are counted from `first` on."""
    if len(targets) == 1:
        return torch.full_like(voxels.keys, first)
    found = nearest_voxel(voxels, targets)
    return found + first if first else found


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Denoiser(UNet):
    """Sparse U-Net whose features are scaled, at eight places, by an MLP of the nearest condition voxel and the time.

    The MLPs see only (condition voxel, t): they run once per condition voxel, a few thousand, and their results are
    gathered, instead of once per scene voxel. Their first layer multiplies condition and time one after the other,
    because each changes without the other. Source: the released network. Deviation: with several clouds in a batch each
    voxel gets the time of its own cloud, which is what the release intends.

    Args: schedule: turns a predicted displacement into noise; None: the released one. Noise needs none.
    """

    def __init__(self, config: NetConfig, schedule: Schedule | None = None) -> None:
        super().__init__(config, out_channels=3, in_channels=config.in_channels + config.see_scan)
        self.schedule = schedule or Schedule()
        c = config.channels
        d_cond, d_time = c[4], c[8]
        for place, c_out in zip(PLACES, c[:8], strict=True):
            self.add_module(f"latent_{place}", _mlp(d_cond, d_cond, d_cond))
            d_hidden = c_out if place in NARROW_PLACES else d_cond
            self.add_module(f"latemp_{place}", _mlp(2 * d_cond, d_hidden, c_out))
            self.add_module(f"{place}_temp", _mlp(d_time, d_time, d_cond))
        self.time_table: Float[Tensor, "T D"] | None
        self.register_buffer("time_table", None, persistent=False)
        self.sigma_table: Float[Tensor, " T"] | None
        self.register_buffer("sigma_table", None, persistent=False)

    def forward(
        self, x_t: Float[Tensor, "B M 3"], t: Int[Tensor, " B"], cond: Condition
    ) -> Float[Tensor, "B M 3"]:
        """eps_hat: the predicted noise of each point, in standard deviations.

        x_t: noisy points [m], sensor frame. t: step in [0, T) of each cloud. cond: the encoded scans.
        """
        return self.predict(self.embed(x_t, cond), t, cond)

    def guided(
        self,
        x_t: Float[Tensor, "B M 3"],
        t: Int[Tensor, " B"],
        cond: Condition,
        uncond: Condition,
        scale: float,
    ) -> Float[Tensor, "B M 3"]:
        """Classifier-free guidance, eps_uncond + scale (eps_cond - eps_uncond); in the released form
        both branches share voxels, kernel maps and stem, and run through the rest as one."""
        scene = self.embed(x_t, cond)
        if self.config.see_scan:  # the branches differ in their voxels
            eps_cond = self.predict(scene, t, cond)
            eps_uncond = self.predict(self.embed(x_t, uncond), t, uncond)
        elif self.training:  # and in their statistics
            eps_cond, eps_uncond = self.predict(scene, t, cond), self.predict(scene, t, uncond)
        else:
            eps_cond, eps_uncond = self.predict(scene, t, cond, uncond).unbind(2)
        return guide(eps_uncond, eps_cond, scale)

    def prepared(self, cond: Condition) -> Condition:
        """The condition with what the MLPs make of it before they see the time: once a scan, instead of once a step.

        It is for this denoiser alone, and as long as its weights stay what they are.
        """
        latents = {place: self._latent(place, cond) for place in PLACES}
        return replace(cond, latents=latents)

    @torch.no_grad()
    def tabulate_times(self) -> None:
        """Ask the MLPs about every t of the schedule now, instead of once a step; for weights that stay as they are."""
        device = next(self.parameters()).device
        self.sigma_table = self.schedule.sigma_t.to(device)
        self.time_table = torch.cat(self._times(torch.arange(self.schedule.T, device=device)), dim=1)

    def embed(self, x_t: Float[Tensor, "B M 3"], cond: Condition) -> NoisyScene:
        """Voxelise the points and run the stem."""
        points = embed_points(x_t, self.config, cond.scan if self.config.see_scan else None)
        return NoisyScene(points, self.stem(points.tensor))

    def predict(
        self, scene: NoisyScene, t: Int[Tensor, " B"], *conds: Condition
    ) -> Float[Tensor, "B M *G 3"]:
        """The rest of the network; of several conditions G, the predictions side by side."""
        guides, times = _Guides(conds), dict(zip(PLACES, self._times(t), strict=True))
        stem = scene.stem
        if len(conds) > 1:
            stem = stem.with_feats(stem.feats[:, None].expand(-1, len(conds), -1))
        x = [stem]
        for i in range(1, 5):
            x.append(self.stage(i, x[-1], self._scale(f"stage{i}", x[-1].voxels, guides, times)))
        y = x.pop()
        for i in range(1, 5):
            scale = replace(self._scale(f"up{i}", y.voxels, guides, times), spent=True)
            y = self.up(i, y, x.pop(), scale)
            y = self.join(i, y)
        # The head is row-wise: it runs once per voxel and its three channels are gathered.
        out = scene.points.to_points(y.with_feats(with_repeating_rows(self.last, y.feats)))
        if self.config.predicts == "noise":
            return out
        return out.float() / -self.error_scale(t).view(-1, *(1,) * (out.ndim - 1))

    def error_scale(self, t: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """What an error of the noise counts as in the unit that the network predicts: 1 where that is noise, sigma_t
        [m] for a displacement, whose error at small t would otherwise drown all others."""
        sigmas = self.schedule.sigma_t.to(t.device) if self.sigma_table is None else self.sigma_table
        sigma_t = sigmas[t]
        return sigma_t if self.config.predicts == "displacement" else torch.ones_like(sigma_t)

    def _scale(self, place: str, voxels: Voxels, guides: _Guides, times: Mapping[str, Tensor]) -> RowScale:
        """What the conditions multiply the features of a level by."""
        latents = [
            cond.latents[place] if cond.latents else self._latent(place, cond) for cond in guides.conds
        ]
        time = times[place] if len(times[place]) == 1 else gather(times[place], guides.batch)
        hidden = _joined(latents) + time
        _, activation, last = self._layers(place)
        weight = with_repeating_rows(lambda rows: last(activation(rows)), hidden)
        return RowScale(weight, guides.rows(voxels))

    def _latent(self, place: str, cond: Condition) -> Float[Tensor, "P D"]:
        """What the first layer at a place makes of the condition."""
        latent = with_repeating_rows(self.get_submodule(f"latent_{place}"), cond.feats)
        kernel, _ = self._first_kernels(place)
        return with_repeating_rows(partial(linear, weight=kernel), latent)

    def _times(self, t: Int[Tensor, " B"]) -> list[Float[Tensor, "B D"]]:
        """What the first layer at each place makes of the time, its bias included."""
        if self.time_table is not None:
            widths = [self._layers(place)[0].out_features for place in PLACES]
            return list(self.time_table[t].split(widths, dim=1))
        embedded = timestep_embedding(t, self.config.channels[8])
        times = []
        for place in PLACES:
            _, kernel = self._first_kernels(place)
            temp = self.get_submodule(f"{place}_temp")(embedded.to(kernel.dtype))
            times.append(F.linear(temp, kernel, self._layers(place)[0].bias))
        return times

    def _first_kernels(self, place: str) -> tuple[Float[Tensor, "D E"], Float[Tensor, "D E"]]:
        """The first layer's kernels of the condition and of the time."""
        first, second = self._layers(place)[0].weight.chunk(2, dim=1)
        return (second, first) if place == TIME_BEFORE_LATENT else (first, second)

    def _layers(self, place: str) -> tuple[nn.Linear, nn.Module, nn.Module]:
        """The MLP of a place, which sees condition and time."""
        first, activation, last = self.get_submodule(f"latemp_{place}").children()
        assert isinstance(first, nn.Linear)
        return first, activation, last
