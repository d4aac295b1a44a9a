"""`python -m benchmarks`: all benchmarks. Options: --quick, --full, --only NAME, --json FILE, --write FILE."""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BENCHMARKS = (
    "training_step",
    "distillation_step",
    "default_step",
    "precision",
    "cached_reports",
    "distillers",
    "segmentors",
    "monai_baseline",
    "c2fvl",
    "textdiff",
    "textdiff_features",
    "loading",
    "start",
)
"""The files in the order of the tables."""


def main() -> None:
    """Run what was asked for and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds of small networks: to see that all works")
    parser.add_argument("--full", action="store_true", help="also with TextDiff's published U-Net: minutes, and 8 GB")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write machine and rows as JSON")
    parser.add_argument("--write", type=Path, help="also put the tables into the marked block of a Markdown file")
    asked = parser.parse_args()

    from benchmarks.table import Row, around_block, render, write_block
    from preceptor.storage import write_json

    if asked.write:
        try:
            around_block(asked.write)  # better now than after ten minutes
        except ValueError as error:
            parser.error(str(error))
    rows: list[Any] = []
    machine = describe(asked.quick, asked.seed)
    text = ""
    for name in asked.only or BENCHMARKS:
        rows += run(name, asked.quick, asked.seed, asked.full)
        text = render(rows, machine)
        if asked.json:  # after each, so that what was measured outlives an interruption
            plain: dict[str, list[Any]] = {"rows": [], "lines": []}
            for row in rows:
                plain["rows" if isinstance(row, Row) else "lines"].append(row.plain())
            write_json(asked.json, {"machine": machine, **plain})
        if asked.write:
            write_block(asked.write, text)
    print(text)


def run(name: str, quick: bool, seed: int, full: bool = False) -> list[Any]:
    """The rows of one benchmark, with the memory of the contenders that the file names."""
    from benchmarks.memory import peaks
    from benchmarks.scene import Setting
    from benchmarks.table import Row

    began = time.monotonic()
    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory() as folder:
        rows = list(module.rows(Setting(quick, seed, Path(folder), full)))
    for place, row in enumerate(rows):
        if isinstance(row, Row) and row.weigh:
            ours, baseline = peaks(name, seed, quick)
            rows[place] = row.with_memory(ours, baseline)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def describe(quick: bool, seed: int) -> dict[str, Any]:
    """What the figures were made with."""
    from benchmarks.scene import BATCH, SIDE, Setting
    from preceptor.environment import environment

    precision = "bf16" if Setting(quick, seed, Path()).bf16 else "float32"
    return {
        **environment(),
        "precision": precision,
        "seed": seed,
        "quick": quick,
        "batch": f"batches of {BATCH} x {SIDE} x {SIDE} unless told otherwise",
    }


if __name__ == "__main__":
    main()
