"""What a completion asks of its networks: to encode a scan, to predict noise, to refine."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import Condition, ConditionEncoder
from densescan.nets.networks import Networks
from densescan.sparse.backends.recording import Recording, check

Predict = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> eps_hat: predicted noise of the points x_t (B, M, 3) [m]; t is a scalar int64 tensor."""


class Passes:
    """The passes of one set of fused networks, for scans and scenes of any size.

    networks: encoder, denoiser and, if there is one, refiner; their weights stay as they are. guidance_scale: of
        classifier-free guidance; 1: the denoiser is asked once a step, with the condition alone.
    """

    def __init__(self, networks: Networks, guidance_scale: float) -> None:
        assert networks.encoder is not None
        assert networks.denoiser is not None
        self.networks = networks
        self.encoder: ConditionEncoder = networks.encoder
        self.denoiser: Denoiser = networks.denoiser
        self.refiner = networks.refiner
        self.scale = float(guidance_scale)
        self._unconditional: dict[int, Condition] = {}

    def predictor(self, points: Float[Tensor, "B N 3"]) -> Predict:
        """Encode the scans [m]; what predicts the noise about them."""
        cond = self._condition(points)
        return lambda x_t, t: self._predict(x_t, t, cond)

    def refine(
        self, points: Float[Tensor, "M 3"], rows: Int[Tensor, " K"] | None = None
    ) -> Float[Tensor, "L 3"]:
        """Six points for each of some rows [m], None: for all of them. Without a refiner the points themselves."""
        points = points if rows is None else points[rows]
        return points if self.refiner is None else self.refiner(points[None])[0].float()

    def check(self) -> None:
        """Raises: NoRoom: what was given since the last check means nothing, see `RecordedPasses`."""

    def _condition(self, points: Float[Tensor, "B N 3"]) -> Condition:
        return self.denoiser.prepared(self.encoder(points))

    def _predict(
        self, x_t: Float[Tensor, "B M 3"], t: Int[Tensor, ""], cond: Condition
    ) -> Float[Tensor, "B M 3"]:
        times = t.expand(len(x_t))
        if self.scale == 1.0:
            noise = self.denoiser(x_t, times, cond)
        else:
            noise = self.denoiser.guided(x_t, times, cond, self._uncond(len(x_t)), self.scale)
        return noise.float()

    def _uncond(self, batch: int) -> Condition:
        """The unguided branch's condition, which is the same for all scans."""
        if batch not in self._unconditional:
            self._unconditional[batch] = self.denoiser.prepared(self.encoder.unconditional(batch))
        return self._unconditional[batch]


class RecordedPasses(Passes):
    """The same for one scan at a time, scans and scenes of one size: recorded on a GPU, so that launches cost next to
    nothing. Results are the same to the bit. A prediction is overwritten by the next one.

    Scenes that leave the room of the recordings, which is half as large again as what their first calls needed, are
    found by `check`. taken: held by the thread whose scan is being completed. boxed: as for `Recording`.
    """

    def __init__(self, networks: Networks, guidance_scale: float, boxed: bool = True) -> None:
        super().__init__(networks, guidance_scale)
        if self.scale != 1.0:
            self._uncond(1)
        self.taken = Lock()
        self._encoding = Recording(self._condition, boxed=boxed)
        self._predicting = Recording(lambda x_t, t: self._predict(x_t, t, self._encoding.output), boxed=boxed)
        self._refining = Recording(self._refined, absent=True, boxed=boxed)

    def predictor(self, points: Float[Tensor, "1 N 3"]) -> Predict:
        """As `Passes`; good until the next call."""
        self._encoding(points)
        return self._predicting

    def refine(
        self, points: Float[Tensor, "M 3"], rows: Int[Tensor, " K"] | None = None
    ) -> Float[Tensor, "L 3"]:
        """As `Passes`, but as if all points were there: the others fill no voxel."""
        if self.refiner is None or rows is None:
            return super().refine(points, rows)
        absent = torch.full_like(points, torch.nan)
        refined: Tensor = self._refining(absent.index_copy_(0, rows, points[rows]))
        return refined[rows].flatten(0, 1)

    def check(self) -> None:
        """Raises: NoRoom: a scan or scene had more voxels than there is room for, or points that are not valid."""
        check(self._encoding, self._predicting, self._refining)

    def _condition(self, points: Float[Tensor, "B N 3"]) -> Condition:
        cond = super()._condition(points)
        cond.voxels.batch  # noqa: B018 - kept with the voxels: made in this recording, not in the next
        return cond

    def _refined(self, points: Float[Tensor, "M 3"]) -> Float[Tensor, "M 6 3"]:
        assert self.refiner is not None
        scene: Tensor = self.refiner(points[None])[0]
        return scene.float().unflatten(0, (len(points), -1))


class Recordings:
    """Recorded passes for the sizes that come up again; the latest are kept."""

    MOST = 2
    REMEMBERED = 64  # sizes that came once

    def __init__(self) -> None:
        self._seen: dict[tuple[Hashable, ...], bool] = {}
        """Whether a recording of such sizes had no room: the next one has no box, so that scans of two kinds do not
        make each other's be recorded anew again and again."""
        self._kept: dict[tuple[Hashable, ...], RecordedPasses] = {}

    def of(self, plain: Passes, *sizes: int) -> RecordedPasses | None:
        """A recording of plain passes; None where scans of these sizes come for the first time, for to record takes as
        long as a few completions."""
        key = plain, *sizes
        if key not in self._seen:
            self._seen[key] = False
            _keep_latest(self._seen, self.REMEMBERED)
            return None
        recorded = self._kept.pop(key, None)
        if recorded is None:
            recorded = RecordedPasses(plain.networks, plain.scale, boxed=not self._seen[key])
        self._kept[key] = recorded
        _keep_latest(self._kept, self.MOST)
        return recorded

    def forget(self, recorded: RecordedPasses) -> None:
        """Record anew when the next scan comes."""
        self._seen |= {key: True for key, kept in self._kept.items() if kept is recorded}
        self._kept = {key: kept for key, kept in self._kept.items() if kept is not recorded}


def _keep_latest(entries: dict[tuple[Hashable, ...], Any], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]
