"""Networks of the released form and full width that need no download and yet make a scene."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densescan.diffusion import Schedule, noise_scene
from densescan.nets.blocks import ResidualBlock
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import Condition, ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.nets.refiner import Refiner
from densescan.weights.official import from_state_dict

REPEAT = 10  # scene points for each scan point, as released

# What keeps random networks tame:
CALIBRATION_STEPS = (999, 500, 125)
"""Steps whose noise the denoiser's batch norm is calibrated on: the less noise, the more neighbours has a voxel."""
SETTLED = 0.1
"""How far the points of a finished scene lie from the scan [m]; the refiner is calibrated on such a one."""
RESIDUAL_GAIN = 0.3
"""Last norm weight of residual blocks: at 1, what differs from the calibration grows from block to block."""
HEAD_GAIN = 0.1
"""Factor on the last layer: predictions become small errors, see `true_noise`, and small moves of refined points."""


def random_networks(width: float, seed: int, scan: Float[Tensor, "N 3"]) -> Networks:
    """Networks of the released form with random weights, tame at every noise level.

    scan: the reduced scan [m]; batch norm is calibrated on it, repeated and noised as in sampling, where it lies. It
    must be as dense as the one that is completed: with more neighbours than in calibration, features run away.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config, schedule = NetConfig(width=width), Schedule()
        networks = Networks(ConditionEncoder(config), Denoiser(config), Refiner(config)).to(scan.device)
        for net in networks.present().values():
            net.train().apply(_prepare_for_calibration)
        x_init = scan.repeat(REPEAT, 1)[None]
        with torch.no_grad():
            cond = networks.encoder(scan[None])
            for t in CALIBRATION_STEPS:
                x_t = noise_scene(x_init, float(schedule.sigma_t[t]), torch.randn_like(x_init))
                networks.denoiser(x_t, torch.tensor([t], device=scan.device), cond)
            networks.refiner(noise_scene(x_init, SETTLED, torch.randn_like(x_init)))
            for net in (networks.denoiser, networks.refiner):
                net.last[2].weight.mul_(HEAD_GAIN)
                net.last[2].bias.mul_(HEAD_GAIN)
    return networks.eval()


def _prepare_for_calibration(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm1d):
        module.momentum = None  # the running statistics become the mean over all passes
    if isinstance(module, ResidualBlock):
        nn.init.constant_(module.net[-1].bn.weight, RESIDUAL_GAIN)


def true_noise(
    x_t: Float[Tensor, "*shape"], x_init: Float[Tensor, "*shape"], t: int
) -> Float[Tensor, "*shape"]:
    """The noise that a perfect network would find: all that parts the points from the scan, in standard deviations.

    Both pipelines add it to their small random predictions. Random predictions alone would scatter the points over many
    metres, where voxels have no neighbours and little is left to compute, let alone to refine.
    """
    return (x_t - x_init) / Schedule().sigma_t[t]


class SteeredDenoiser(Denoiser):
    """A denoiser whose own output is the error that it makes beside the true noise."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """As `Denoiser`."""
        return super().forward(x_t, t, cond) + self._noise(x_t, t, cond)

    def guided(self, x_t: Tensor, t: Tensor, cond: Condition, uncond: Condition, scale: float) -> Tensor:
        """As `Denoiser`."""
        return super().guided(x_t, t, cond, uncond, scale) + self._noise(x_t, t, cond)

    @staticmethod
    def _noise(x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        return true_noise(x_t, cond.scan.repeat(1, x_t.shape[1] // cond.scan.shape[1], 1), int(t))


def steered(tensors: dict[str, Tensor]) -> Networks:
    """The networks of a state dict with a steered denoiser."""
    networks = from_state_dict(tensors)
    denoiser = SteeredDenoiser(networks.denoiser.config)
    denoiser.load_state_dict(networks.denoiser.state_dict())
    return Networks(networks.encoder, denoiser, networks.refiner).eval()
