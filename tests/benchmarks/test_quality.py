"""The quality benchmark: its rivals and scores, and that the published tables are those of the records."""

import json
from pathlib import Path

import numpy as np
import pytest
from quality import COLUMNS, JITTERS, Table, rivals, scores

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("quality-*.json"))
PAGES = (ROOT / "README.md", ROOT / "src/densescan/weights/bundled/small/README.md")


def test_the_rivals_are_the_scan_and_its_jittered_copies(street: np.ndarray) -> None:
    near = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    scenes = rivals(np.concatenate((street, near)), seed=0)
    np.testing.assert_array_equal(scenes["bare scan"], street)
    for sigma in JITTERS:
        jittered = scenes[f"jittered {sigma}"]
        assert jittered.shape == (10 * len(street), 3)
        offsets = jittered.reshape(10, -1, 3) - jittered.reshape(10, -1, 3).mean(0)
        assert offsets.std() == pytest.approx(sigma * np.sqrt(0.9), rel=0.02)


def test_a_perfect_scene_scores_perfectly(street: np.ndarray) -> None:
    np.testing.assert_allclose(scores(street, street), [0, 0, 0, 0, 0, 1, 1], atol=1e-12)


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_published_tables_are_those_of_the_records(record: Path) -> None:
    content = json.loads(record.read_text())
    assert tuple(content["columns"]) == COLUMNS
    table = Table(content["scores"], content["cases"]).markdown()
    for page in PAGES:
        text = page.read_text()
        assert all(line in text for line in table.splitlines()), f"{page.name} differs from {record.name}"
