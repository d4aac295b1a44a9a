"""What is compared with MONAI's networks is the same network."""

from pathlib import Path

import pytest

from benchmarks.monai_baseline import NETWORKS, _loops, _step
from benchmarks.scene import Setting, batch


@pytest.mark.parametrize("name", NETWORKS)
def test_both_answer_alike_and_learn_alike(name: str) -> None:
    setting = Setting(True, 0, Path())
    loops = _loops(setting, NETWORKS[name], "tiny", fast=False)
    shown = batch(setting, 1, 64, 9)
    for _ in range(2):
        ours, theirs = (_step(loop, shown) for loop in loops)
        assert ours == pytest.approx(theirs, rel=1e-3)
