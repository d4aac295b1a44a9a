"""Figures: round ticks, curves where there are some, positions inside the plot."""

import xml.etree.ElementTree as ET

import pytest

from preceptor.evaluation.figures import Line, curves, differences, forest, mean_line, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.61, 0.93, [0.7, 0.8, 0.9]), (-3, 7, [-2, 0, 2, 4, 6]), (5, 5, [5])],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_curves_are_valid_xml_with_a_line_an_arm_and_the_means_on_top() -> None:
    own = [Line("student", ((0, 0.1), (1, 0.4), (2, 0.5)), faint=True), Line("student", ((0, 0.3), (1, 0.6)), True)]
    svg = ET.fromstring(curves([mean_line("student", own), *own], "Dice", "Dice over epochs"))
    drawn = [node.get("class") for node in svg.iter("polyline")]
    assert drawn == ["line student faint", "line student faint", "line student"]


def test_a_mean_ends_where_the_first_seed_ends() -> None:
    mean = mean_line(
        "control", [Line("control", ((0, 1.0), (1, 2.0), (2, 3.0))), Line("control", ((0, 3.0), (1, 4.0)))]
    )
    assert mean.points == ((0, 2.0), (1, 3.0))


def test_there_is_no_chart_without_a_curve() -> None:
    assert curves([], "Dice", "x") == ""
    assert curves([Line("student", ((0, 1.0),))], "Dice", "x") == ""


def test_thinning_keeps_both_ends() -> None:
    points = [(float(i), 0.0) for i in range(1001)]
    kept = thinned(points)
    assert len(kept) <= 241
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_differences_have_a_bar_a_case_from_gain_to_loss() -> None:
    svg = ET.fromstring(differences([-0.1, 0.3, 0.0]))
    bars = list(svg.iter("rect"))
    assert [bar.get("class") for bar in bars] == ["up", "down", "down"]
    assert float(bars[0].get("height", 0)) == pytest.approx(3 * float(bars[2].get("height", 0)), rel=0.01)


def test_forest_places_points_between_their_bounds_and_zero_on_the_axis() -> None:
    plot = forest([{"mean": 0.2, "low": 0.1, "high": 0.4}, {"mean": 0.3, "low": None, "high": float("nan")}], zero=True)
    at = plot["rows"][0]["at"]
    assert 0 < float(plot["zero"]) < float(at["low"]) < float(at["mean"]) < float(at["high"]) < 100
    assert plot["rows"][1]["at"]["low"] is plot["rows"][1]["at"]["high"] is None
    assert forest([])["rows"] == []
