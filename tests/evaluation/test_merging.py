"""Records of parts of a split, merged."""

import pytest

from densescan.cli import main
from densescan.data.split import open_split
from densescan.errors import InputError
from densescan.evaluation.evaluate import Plan, evaluate
from densescan.evaluation.merging import merge
from densescan.evaluation.records import read_run

PLAN = Plan("street", metrics=("chamfer", "iou"))


@pytest.fixture
def parts(data, noisy, tmp_path):
    """The same method on each of the two sequences, in folders a and b; and the record of both at once."""
    for name, sequences in (("whole", None), ("b", ("09",)), ("a", ("08",))):
        (tmp_path / name).mkdir()
        evaluate(noisy, open_split(data, sequences=sequences), tmp_path / name / "noisy.jsonl", PLAN)
    return [tmp_path / name / "noisy.jsonl" for name in ("b", "a")]


def test_merged_parts_are_the_record_of_the_whole(parts, tmp_path):
    merged, whole = merge(parts, tmp_path / "noisy.jsonl"), read_run(tmp_path / "whole" / "noisy.jsonl")
    assert merged.header == whole.header
    assert merged.rows == whole.rows


def test_what_does_not_belong_together(parts, data, noisy, tmp_path):
    with pytest.raises(InputError, match="both hold 09/000007"):
        merge([*parts, parts[0]], tmp_path / "noisy.jsonl")
    other = tmp_path / "other.jsonl"
    evaluate(noisy, open_split(data, sequences=("08",)), other, Plan("street", seed=1, metrics=PLAN.metrics))
    with pytest.raises(InputError, match=r"has seed = 1, .* has 0: merge records of one method"):
        merge([parts[0], other], tmp_path / "noisy.jsonl")
    assert not (tmp_path / "noisy.jsonl").exists()
    with pytest.raises(InputError, match="is there already"):
        merge(parts, other)


def test_the_command_merges_records_of_one_name(parts, tmp_path, capsys):
    (tmp_path / "a" / "second.jsonl").write_bytes(parts[1].read_bytes())
    folders = [str(part.parent) for part in parts]
    assert main(["results", "merge", *folders, "-o", str(tmp_path / "out")]) == 0
    assert "noisy.jsonl: 6 frames of 2 records" in capsys.readouterr().out
    assert len(read_run(tmp_path / "out" / "second.jsonl").rows) == 4
    assert main(["results", "merge", *folders, "-o", str(tmp_path / "out")]) == 2
