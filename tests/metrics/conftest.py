"""Reference clouds and the values that the released evaluation gives for them."""

import json

import numpy as np
import pytest

PREDICTIONS = ("noisy_decimated", "shifted", "noisy_outliers_larger", "identical")


@pytest.fixture(params=PREDICTIONS)
def reference(request, shared):
    """(prediction, truth, reference values) of one case."""
    folder = shared / "reference"
    clouds = np.load(folder / "metrics_clouds.npz")
    truth = clouds["gt"]
    pred = truth if request.param == "identical" else clouds[f"pred_{request.param}"]
    return pred, truth, json.loads((folder / "metrics.json").read_text())[request.param]
