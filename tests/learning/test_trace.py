"""Traces survive being cut anywhere."""

import csv
from pathlib import Path

import pytest

from preceptor.errors import StorageError
from preceptor.learning.trace import Trace, write_table


def steps(path: Path) -> list[str]:
    with open(path, encoding="utf-8", newline="") as file:
        return [row["step"] for row in csv.DictReader(file)]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "steps.csv")
    for step in range(1, 14):
        trace.add({"step": step, "loss": 0.5})
    trace.write()
    content = trace.path.read_text()
    trace.path.write_text(content[: content.index("12,") + 1])
    trace.cut(11)
    assert steps(trace.path) == [str(step) for step in range(1, 12)]


def test_lines_after_the_checkpoint_are_done_again(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "steps.csv")
    for step in range(1, 6):
        trace.add({"step": step, "loss": 0.1})
    trace.write()
    trace.cut(3)
    trace.add({"step": 4, "loss": 0.2})
    trace.write()
    assert steps(trace.path) == ["1", "2", "3", "4"]
    trace.cut(0)
    assert not trace.path.exists()


def test_tables_have_every_column_that_a_row_has(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"a": 1}, {"a": 2, "b": 3}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n2,3\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_of_the_user() -> None:
    trace = Trace(Path("/dev/full"))
    trace.add({"step": 1, "loss": 0.5})
    with pytest.raises(StorageError, match="No space left"):
        trace.write()
