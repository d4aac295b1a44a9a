"""How long the command line and the imports take, each in a fresh process."""

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import middle, seconds
from benchmarks.scene import Setting
from benchmarks.table import Row

LIMIT = 0.5
"""Seconds."""
IMPORTS = {
    "import torch": "torch",
    "import a student": "preceptor.segmentors.unguided",
    "import what training needs": "preceptor.learning.arm, lightning.fabric",
    "import the pipeline": "preceptor.pipeline",
}


def rows(setting: Setting) -> Iterator[Row]:
    rounds, imports = (3, 1) if setting.quick else (9, 3)
    value, low, high = _median([sys.executable, "-m", "preceptor.cli", "--help"], rounds)
    yield Row("preceptor --help", value, 0.0, "s", value, low, high, "value", at_most=LIMIT)
    for name, modules in IMPORTS.items():
        value, low, high = _median([sys.executable, "-c", f"import {modules}"], imports)
        yield Row(name, value, 0.0, "s", value, low, high, "value")


def _median(command: list[str], rounds: int) -> tuple[float, float, float]:
    def call() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return middle([seconds(call) for _ in range(rounds)])
