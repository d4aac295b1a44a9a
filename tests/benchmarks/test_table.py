"""The table of benchmarks: fair turns, honest verdicts, and one command that prints all rows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import PacedLoader, Times, by_turns, in_turn, middle
from benchmarks.segmentors import NETWORKS as SEGMENTORS
from benchmarks.table import BEGIN, END, Line, Row, render, write_block
from preceptor.distillers.zoo import DISTILLERS

ROOT = Path(__file__).parents[2]
MACHINE: dict[str, Any] = {
    "processor": "a processor",
    "devices": [],
    "cores": 2,
    "threads": 2,
    "system": "Linux",
    "python": "3.12",
    "packages": {"torch": "2.13", "absent": None},
    "precision": "bf16",
    "batch": "steps on 8 images",
    "seed": 0,
    "quick": False,
}


def test_contenders_take_turns_in_changing_order() -> None:
    calls: list[str] = []
    times = in_turn(lambda: calls.append("ours"), lambda: calls.append("baseline"), rounds=2, warm=1)
    assert calls == ["ours", "baseline", "baseline", "ours", "ours", "baseline"]
    assert len(times.ours) == len(times.baseline) == 2


def test_many_contenders_share_every_round() -> None:
    calls: list[str] = []
    taken = by_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=1, warm=1)  # type: ignore[misc]
    assert "".join(calls) == "abccba"
    assert {name: len(times) for name, times in taken.items()} == {"a": 1, "b": 1, "c": 1}


def test_paced_loader_hands_out_one_batch_and_lets_the_baseline_step_in_between() -> None:
    calls: list[str] = []
    loader = PacedLoader("batch", lambda: calls.append("baseline"), rounds=2, warm=1)
    for batch in loader:
        calls.append(batch)
    assert calls == ["batch", "baseline", "baseline", "batch", "batch", "baseline"]
    assert len(loader) == 3
    assert len(loader.times.ours) == len(loader.times.baseline) == 2


def test_paced_loader_counts_what_the_loop_does_and_not_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: clock[0])

    def spend(seconds: float) -> None:
        clock[0] += seconds

    loader = PacedLoader("batch", lambda: spend(7.0), rounds=3, warm=1)
    for _ in loader:
        spend(2.0)
    assert loader.times.ours == [2.0] * 3
    assert loader.times.baseline == [7.0] * 3


def test_ratio_is_the_median_of_the_rounds_with_its_quartiles() -> None:
    times = Times([1.0, 2.0, 3.0, 4.0, 50.0], [1.0, 1.0, 1.0, 1.0, 10.0])
    assert times.ratio() == (3.0, 2.0, 4.0)
    assert times.medians() == (3.0, 1.0)
    assert middle([2.5]) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize(
    ("value", "demand", "met"),
    [
        (1.05, {"at_most": 1.05}, True),
        (1.051, {"at_most": 1.05}, False),
        (1.9, {"at_least": 2.0}, False),
        (2.0, {"at_least": 2.0}, True),
        (9.0, {}, None),
    ],
)
def test_a_row_says_whether_its_demand_is_met(value: float, demand: dict[str, float], met: bool | None) -> None:
    row = Row("a step", 1.0, 1.0, "ms", value, value, value, **demand)  # type: ignore[arg-type]
    assert row.met is met
    assert row.plain()["met"] is met
    shown = render([row], MACHINE).splitlines()[-1]
    assert ("**no**" in shown) == (met is False)


def test_table_shows_machine_both_contenders_and_memory() -> None:
    row = Row.of_times("a step", Times([0.1, 0.1], [0.2, 0.2]), False).with_memory(100.0, 200.0)
    text = render([row], MACHINE)
    assert "a processor, 2 cores, 2 threads, Linux, Python 3.12, torch 2.13, default precision bf16" in text
    assert text.splitlines()[-1] == "| a step | 100 ms | 200 ms | 0.500 (0.500 to 0.500) |  |  | 100 / 200 MiB |"
    assert "quick run" not in text
    assert "quick run" in render([row], {**MACHINE, "quick": True})


def test_lines_of_other_columns_make_tables_of_their_own() -> None:
    lines = [
        Line("Trees", {"tree": name, "height": f"{size} m"}, {"tree": name, "height": size}, met)
        for name, size, met in (("oak", 30, True), ("elm", 20, None))
    ]
    shown = render([*lines, Row("a step", 1.0, 1.0, "ms", 1.0, 1.0, 1.0)], MACHINE)
    assert shown.split("\n\n")[2:] == [
        "### Trees",
        "| tree | height |\n|---|---:|\n| oak | 30 m |\n| elm | 20 m |",
    ]
    assert "| a step |" in shown.split("\n\n")[1]
    assert lines[0].plain() == {"table": "Trees", "tree": "oak", "height": 30, "met": True}
    assert "comparison" not in render(lines, MACHINE)


def test_difference_keeps_its_sign() -> None:
    row = Row("Dice", 0.7, 0.71, "Dice", -0.01, -0.02, 0.001, "difference")
    assert "| 0.7000 Dice | 0.7100 Dice | -0.0100 (-0.0200 to +0.0010) |" in render([row], MACHINE)


def test_only_the_marked_block_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        write_block(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


def test_a_page_without_the_block_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no block\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no block"):
        write_block(page, "new")
    assert page.read_text(encoding="utf-8") == "no block\n"


def test_the_documentation_has_the_block() -> None:
    content = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert content.index(BEGIN) < content.index(END)


@pytest.mark.slow
def test_the_command_prints_every_comparison(tmp_path: Path) -> None:
    """In quick mode, whose times say nothing: only that all is there and finite."""
    out = tmp_path / "table.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=900)
    written = json.loads(out.read_text(encoding="utf-8"))
    rows, lines = written["rows"], written["lines"]
    names = " ".join(row["name"] for row in rows)
    parts = ["training step", "distillation step", "float32 NCHW", "Dice", "BERT", "MONAI", "loader", "--help"]
    for part in (*parts, "C2FVL", "TextDiff's classifier", "TextDiff's features", "kept features", "latency"):
        assert part in names
    assert all(row["ours"] > 0 for row in rows if row["unit"] != "Dice")
    assert sum(row["memory"] is not None for row in rows) == 5
    assert all(row["name"] in done.stdout for row in rows)
    assert {line["table"].partition(" ")[0] for line in lines} == {"Distillers", "Segmentors", "TextDiff's"}
    assert {line["name"] for line in lines} >= {*DISTILLERS, *SEGMENTORS}
