"""The networks of a model: their names are those of the released checkpoints."""

import pytest
import torch

from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import PREFIXES, Networks
from densescan.nets.refiner import Refiner

SMALL = NetConfig(width=1 / 8)


@pytest.mark.parametrize(
    ("checkpoint", "make"),
    [
        ("DiffusionPoints (LiDiff)", lambda c: Networks(encoder=ConditionEncoder(c), denoiser=Denoiser(c))),
        ("RefineDiffusion (LiDiff)", lambda c: Networks(refiner=Refiner(c))),
    ],
)
def test_names_and_shapes_are_the_released_ones(checkpoint, make, reference):
    with torch.device("meta"):
        ours = {name: list(t.shape) for name, t in make(NetConfig()).state_dict().items()}
    released = {name: list(shape) for name, shape, _ in reference("checkpoint_shapes.json")[checkpoint]}
    assert ours == released


def test_absent_networks_are_left_out():
    assert Networks().present() == {}
    assert Networks().state_dict() == {}
    refiner = Refiner(SMALL)
    assert Networks(refiner=refiner).present() == {"refiner": refiner}


def test_names_carry_the_prefix_of_their_network():
    networks = Networks(ConditionEncoder(SMALL), Denoiser(SMALL), Refiner(SMALL))
    state = networks.state_dict()
    for name, net in networks.present().items():
        own = {key.removeprefix(PREFIXES[name]) for key in state if key.startswith(PREFIXES[name])}
        assert own == set(net.state_dict())
    assert len(state) == sum(len(net.state_dict()) for net in networks.present().values())


def test_inference_mode_and_device_reach_every_network():
    networks = Networks(ConditionEncoder(SMALL), Denoiser(SMALL), Refiner(SMALL))
    assert networks.eval() is networks
    assert not any(module.training for net in networks.present().values() for module in net.modules())
    assert networks.to("meta") is networks
    assert {tensor.device.type for tensor in networks.state_dict().values()} == {"meta"}
