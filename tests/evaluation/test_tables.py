"""Tables of hand-written records: means and intervals by hand, what is bold, what is refused, and the markup."""

import numpy as np
import pytest
from scipy import stats

from densescan.errors import InputError
from densescan.evaluation.comparison import compare_runs, comparison_table
from densescan.evaluation.published import TABLE_1, TABLE_2
from densescan.evaluation.tables import COLUMNS, Settings, escape, estimate, latex, markdown, ours, published

PLAIN = Settings(columns=("cd", "iou_0.5", "iou_0.5_micro"), intervals=False)


def test_means_of_a_record_by_hand(record):
    run = record("ours", [0.25, 0.5, 0.75])
    assert estimate(run, "cd").mean == 0.5
    assert estimate(run, "iou_0.5").mean == pytest.approx((1 / 2 + 1 / 4 + 1 / 6) / 3)
    # 3 voxels in both; 0 + 1 + 2 only in the truth, 1 + 2 + 3 only in the scene
    assert estimate(run, "iou_0.5_micro").mean == pytest.approx(3 / 12)


def test_intervals_of_a_record_are_those_of_scipy(record):
    values = np.random.default_rng(0).uniform(0.2, 0.4, 40)
    interval = estimate(record("ours", list(values)), "cd")
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)
    blocked = estimate(record("ours", list(np.sort(values))), "cd", block=8)
    assert blocked.high - blocked.low > 1.5 * (interval.high - interval.low)


def test_markdown_of_a_small_table(record):
    runs = [record("bare", [0.4, 0.6]), record("ours", [0.25, 0.5])]
    [table] = ours(runs, PLAIN)
    assert markdown(table) == (
        "**street, 2 frames**\n"
        "\n"
        "| method | frames | CD [m] ↓ | IoU 0.5 ↑ | IoU 0.5 of all frames ↑ | s ↓ |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| bare | 2 | 0.500 | **0.375** | **0.333** | 1.00 |\n"
        "| ours | 2 | **0.375** | **0.375** | **0.333** | 1.00 |\n"
        "\n"
        "Median seconds a scene, reading excluded, on Abacus. Code: c0ffeec0ffee."
    )


def test_a_frame_that_met_a_busy_machine_does_not_change_the_seconds(record):
    run = record("ours", [0.25, 0.5, 0.3])
    seconds = sorted(row.seconds["total"] for row in run.rows)
    next(row for row in run.rows if row.seconds["total"] == seconds[-1]).seconds["total"] = 1_000.0
    assert f"| {seconds[1]:.2f} |" in markdown(ours([run], PLAIN)[0])


def test_latex_of_a_small_table(record):
    [table] = ours([record("ours_100%", [0.25, 0.5])], Settings(columns=("cd",)))
    assert latex(table).splitlines()[1:] == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"method & frames & CD {[}m] $\downarrow$ & s $\downarrow$ \\",
        r"\midrule",
        r"ours\_100\% & 2 & \textbf{0.375 {[}0.250, 0.500]} & 1.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_characters_lose_their_meaning():
    assert escape("a_b & 5% #1 $x {y} ~ ^ \\z") == (
        r"a\_b \& 5\% \#1 \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )
    assert escape("[0.1] → – ↑") == r"{[}0.1] $\to$ -- $\uparrow$"


def test_intervals_are_shown_and_their_unit_named(record):
    run = record("ours", [0.25, 0.5, 0.3, 0.4])
    text = markdown(ours([run], Settings(columns=("cd",), block=2))[0])
    interval = estimate(run, "cd", block=2)
    assert f"**0.362 [{interval.low:.3f}, {interval.high:.3f}]**" in text
    assert "[95% bootstrap interval over blocks of 2 consecutive frames]" in text
    single = markdown(ours([record("one", [0.25])], Settings(columns=("cd",)))[0])
    assert "| **0.250** |" in single, "one frame says nothing of the spread"


def test_failed_and_unfinished_runs_are_never_best(record):
    failed, whole = record("failed", [0.1, None, 0.1]), record("whole", [0.3, 0.3, 0.3])
    part = record("part", [0.2], split={"name": "street", "frames": 3, "keys": "0"})
    whole = type(whole)(whole.path, part.header.__class__(**vars(whole.header)), whole.rows)
    rows = markdown(ours([failed, whole, part], Settings(columns=("cd",), intervals=False))[0]).splitlines()[
        4:7
    ]
    assert rows == [
        "| failed | 1 of 3 failed | – | – |",
        "| whole | 3 | **0.300** | 1.50 |",
        "| part | 1 of 3 | 0.200 | 0.50 |",
    ]


def test_splits_are_never_in_one_table(record):
    tables = ours(
        [record("a", [0.2, 0.3]), record("b", [0.2, 0.3], name="road"), record("c", [0.1, 0.2])], PLAIN
    )
    assert [table.title for table in tables] == ["street, 2 frames", "road, 2 frames"]
    assert [row[0].text for row in tables[0].rows] == ["a", "c"]


def test_what_makes_no_table_is_refused(record):
    with pytest.raises(InputError, match="got none"):
        ours([])
    with pytest.raises(InputError, match="a second run of a on street"):
        ours([record("a", [0.2]), record("a", [0.2])])
    with pytest.raises(InputError, match=r"unknown column rmse: known are .*cd"):
        Settings(columns=("rmse",))
    with pytest.raises(InputError, match="block must be at least 1"):
        Settings(block=0)


def test_code_that_differs_from_its_commit_is_told(record):
    run = record("ours", [0.25, 0.5])
    dirty = type(run.rows[1])(**vars(run.rows[1]) | {"commit": "c0ffee" * 6 + "-dirty"})
    text = markdown(ours([type(run)(run.path, run.header, [run.rows[0], dirty])], PLAIN)[0])
    assert text.endswith("Code: c0ffeec0ffee, c0ffeec0ffee-dirty.")


def test_the_headlines_are_shown_by_default(record):
    [table] = ours([record("ours", [0.25, 0.5])])
    assert table.header[2:-1] == [COLUMNS[name].heading for name in ("cd", "iou_0.5")]


def test_published_rows_stand_in_a_table_of_their_own():
    text = markdown(published(TABLE_1))
    assert text.startswith("**Published: SemanticKITTI, Table 1 (existing models)**")
    assert "| Distillation-DPO (refined) | 8 | 0.354 | 0.387 | 23.66 | 3.38 |" in text
    assert "| LODE | – | 1.029 | 0.451 | – | 0.58 |" in text
    assert "EMD as released" in text
    assert "authors' frames and hardware" in text
    assert text.count("**") == 2, "nothing of theirs is ranked"
    assert r"LiDiff & 50 & 0.564 & 0.459 & 21.98 & 17.01 \\" in latex(published(TABLE_2))


def test_comparison_of_two_records_by_hand(record):
    a, b = record("a", [0.1, 0.2, 0.3, 0.4]), record("b", [0.3, 0.3, 0.3, 0.8])
    results = compare_runs(a, b)
    assert list(results) == ["cd", "iou_0.5"]
    assert results["cd"].difference.mean == pytest.approx(-0.175)
    assert results["cd"].won == 0.875
    assert results["iou_0.5"].won == 0.5
    table = comparison_table(a, b, results)
    assert table.header[1:3] == ["a", "b"]
    row = [cell.text for cell in table.rows[0]]
    assert row[:3] == ["CD [m] ↓", "0.2500", "0.4250"]
    assert row[3].startswith("-0.1750 [")
    assert row[4:] == ["88%", "0.2500"]
    assert [cell.bold for cell in table.rows[0]][1:3] == [True, False]
    assert not any(cell.bold for cell in table.rows[1])


def test_runs_on_different_frames_are_not_compared(record):
    a, b = record("a", [0.1, 0.2, 0.3]), record("b", [0.3])
    for pair in ((a, b), (b, a)):
        with pytest.raises(InputError, match=r"b.jsonl lacks 08/000001, 08/000002 of .*a.jsonl"):
            compare_runs(*pair)
    other = record("c", [0.3, 0.2, 0.1])
    rows = [type(row)(**vars(row) | {"truth_points": 21}) for row in other.rows]
    with pytest.raises(InputError, match=r"differ in the truth of 08/000000 \(20 and 21 points\)"):
        compare_runs(a, type(other)(other.path, other.header, rows))
    with pytest.raises(InputError, match="1 of 3 failed"):
        compare_runs(a, record("d", [0.3, None, 0.1]))
    with pytest.raises(InputError, match="do not share"):
        compare_runs(a, other, ["jsd_3d"])
    with pytest.raises(InputError, match="unknown column rmse"):
        compare_runs(a, other, ["rmse"])
