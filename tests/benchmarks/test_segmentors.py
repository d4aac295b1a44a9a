"""Networks beside the machine's peak: arithmetic of the shares, and that every network can be measured."""

from pathlib import Path

import pytest

from benchmarks.scene import Setting
from benchmarks.segmentors import NETWORKS, Title, _line, _lines
from preceptor.segmentors import zoo


def test_shares_are_of_the_peak_of_the_same_round() -> None:
    title = Title("a network", "tiny", count=2, side=96, parameters=1_500_000, gflops=10.0, matrix=1000)
    taken = {  # a product of 2 GFLOP: 200, 100 and 200 GFLOP/s
        "peak float32": [0.01, 0.02, 0.01],
        "forward float32": [0.2, 0.4, 0.2],
        "step float32": [0.4, 0.8, 0.4],
    }
    line = _line(title, "float32", taken)
    assert line.values["forward_share"] == pytest.approx(0.5)
    assert line.values["step_share"] == pytest.approx(0.75)
    assert line.values["forward_gflops_per_second"] == pytest.approx(100)
    assert line.cells["step, share of the peak"] == "75%"
    assert line.cells["parameters"] == "1.50 M"


def test_a_network_is_measured_in_each_precision() -> None:
    setting = Setting(True, 0, Path())
    lines = list(_lines(setting, "fcn_r18"))
    assert [line.values["precision"] for line in lines] == (["float32", "bf16"] if setting.bf16 else ["float32"])
    assert all(line.values["gflops"] > 0 and line.values["step_milliseconds"] > 0 for line in lines)


def test_networks_are_of_the_zoo() -> None:
    assert set(NETWORKS) <= set(zoo.SEGMENTORS)
