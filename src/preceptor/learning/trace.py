"""The tables of a training: `steps.csv`, a line an optimiser step, and `metrics.csv`, a line an epoch."""

import csv
from pathlib import Path
from typing import Any

from preceptor.errors import StorageError
from preceptor.storage import replacing

FLUSHED_STEPS = 25


class Trace:
    """Lines of steps, appended to a file every few steps; `write` empties what is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """One more step."""
        self.held.append(row)
        if len(self.held) >= FLUSHED_STEPS:
            self.write()

    def write(self) -> None:
        """Append what is held to the file. Raises StorageError where the disk is full."""
        if not self.held:
            return
        fresh = not self.path.exists()
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(self.held[0]))
                if fresh:
                    writer.writeheader()
                writer.writerows(self.held)
        except OSError as error:
            raise StorageError(
                "the losses of the steps could not be written",
                where=self.path,
                found=error.strerror or str(error),
                remedy="free space or check the folder's permissions, then give the same command again",
            ) from error
        self.held.clear()

    def cut(self, step: int) -> None:
        """Drop the lines of steps after the checkpoint that a run goes on from; they will be done again."""
        if step == 0:
            self.path.unlink(missing_ok=True)
        elif self.path.exists():
            with open(self.path, encoding="utf-8", newline="") as file:
                whole = [row for row in csv.DictReader(file) if None not in row.values()]  # a kill may cut a line
            write_table(self.path, [row for row in whole if int(row["step"]) <= step])


class NoTrace(Trace):
    """Of the processes that write nothing."""

    def add(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def write(self) -> None:
        """Nothing."""

    def cut(self, step: int) -> None:
        """Nothing."""


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, atomically, with every column that one of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
