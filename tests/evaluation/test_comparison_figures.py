"""Cost against Dice: well-formed, inside its frame, labels apart."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from preceptor.evaluation.comparison_figures import APART, BOTTOM, HEIGHT, TOP, WIDTH, Point, cost_axis, scatter


def points(count: int = 8, cost: float = 3.0) -> list[Point]:
    return [Point("student", str(n + 1), cost, 0.70 + 0.001 * n) for n in range(count)]


def places(svg: str) -> list[tuple[float, float]]:
    """Where the labels of the points stand."""
    groups = ElementTree.fromstring(svg).findall("g")
    return [(float(text.attrib["x"]), float(text.attrib["y"])) for text in (group[-1] for group in groups)]


def test_labels_of_networks_that_cost_the_same_do_not_overlap() -> None:
    heights = sorted(y for _, y in places(scatter([*points(), Point("teacher", "t", 40.0, 0.8)], "GFLOPs", "Dice")))
    assert all(b - a >= APART - 0.11 for a, b in itertools.pairwise(heights) if b < heights[-1])


@pytest.mark.parametrize("count", [2, 3, 18])
def test_everything_lies_within_the_frame(count: int) -> None:
    svg = scatter([*points(count), Point("control", "c", 1.0, 0.1)], "GFLOPs", "Dice")
    for x, y in places(svg):
        assert 0 <= x <= WIDTH
        assert TOP <= y <= HEIGHT - BOTTOM + 5


def test_costs_far_apart_are_drawn_on_a_logarithmic_axis() -> None:
    far = scatter([Point("student", "a", 0.1, 0.5), Point("teacher", "b", 100.0, 0.6)], "GFLOPs", "Dice")
    assert [tick for tick in ("0.1", "1", "10", "100") if f">{tick}<" in far] == ["0.1", "1", "10", "100"]
    near = scatter([Point("student", "a", 2.0, 0.5), Point("teacher", "b", 3.0, 0.6)], "GFLOPs", "Dice")
    assert ">2.5<" in near or ">2.2<" in near


def test_equal_points_and_one_point_are_no_fault() -> None:
    assert scatter(points(1), "x", "y") == ""
    assert scatter([], "x", "y") == ""
    same = [Point("student", "1", 2.0, 0.0), Point("control", "2", 2.0, 0.0)]
    assert "nan" not in scatter(same, "x", "y")


def test_labels_are_escaped() -> None:
    svg = scatter([Point("student", '<b>"&', 1.0, 0.5), Point("teacher", "b", 2.0, 0.6)], "<x>", "&y")
    ElementTree.fromstring(svg)
    assert not re.search(r"<b>|<x>", svg)


def test_the_first_cost_that_all_have_is_shown() -> None:
    both = {"gflops": 1.0, "parameters": 10}
    axis = cost_axis([both, both])
    assert axis is not None
    assert axis[0] == "gflops"
    axis = cost_axis([both, {"parameters": 10}])
    assert axis is not None
    assert axis[0] == "parameters"
    assert cost_axis([both, {}]) is None
