"""A comparison in words: no claim without a corrected test, no rank without its doubts, lines that fit a terminal."""

from typing import Any

import pytest

from preceptor.evaluation.comparison_text import as_text, labels

from .comparisons import fabricate_result

TWO = {"fcn_r18": 0.0, "unet_r18": 0.02}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return fabricate_result()


def test_the_answer_counts_who_beats_the_control_and_names_the_best_and_the_worse(result: dict) -> None:
    assert result["answer"].startswith("2 of 4 distillations beat their control; largest gain: review, 3.")
    assert "after Holm" in result["answer"]
    assert "measurably worse: dkd" in result["answer"]
    assert result["answer"].endswith("40 volumes of 20 patients, 3 seeds).")


def test_no_gain_is_claimed_where_no_test_says_so() -> None:
    told = fabricate_result(gains={"a": 0.0, "b": -0.0005})["answer"]
    assert told.startswith("None of 2 distillations beats its control measurably; ")


def test_too_few_patients_give_no_claim() -> None:
    result = fabricate_result(groups=5)
    assert result["answer"].startswith("Too few patients to tell whether any of 4 distillations helped")
    assert "no p-value" in result["answer"]
    assert any("Fewer than six patients" in line for line in result["warnings"])


@pytest.mark.parametrize(
    ("gain", "told"),
    [(0.05, "beats its control"), (-0.05, "is worse than its control"), (0.0, "does not differ measurably from")],
)
def test_a_single_distillation_is_told_in_the_singular(gain: float, told: str) -> None:
    answer = fabricate_result(gains={"kd": gain})["answer"]
    assert answer.startswith(f"The distillation {told}")
    assert "Holm" not in answer


def test_all_worse_is_told_as_the_smallest_loss() -> None:
    assert "smallest loss: a, -1." in fabricate_result(gains={"a": -0.02, "b": -0.05})["answer"]


def test_without_distillation_the_best_is_named() -> None:
    assert fabricate_result(gains={})["answer"].startswith(
        "Nothing was distilled here; teacher wide leads with Dice 0."
    )


def test_labels_name_only_what_differs(result: dict) -> None:
    assert set(labels(result).values()) == {"teacher wide", "control", "kd", "at", "dkd", "review"}
    assert "unet_r18 · kd" in labels(fabricate_result(TWO)).values()
    runs = fabricate_result(kind="runs")
    assert set(labels(runs)) == set(labels(runs).values())


def test_labels_are_never_shared() -> None:
    for found in (fabricate_result(), fabricate_result(TWO), fabricate_result(kind="runs")):
        assert len(set(labels(found).values())) == len(found["entries"])


# Warnings


def test_the_choice_after_seeing_the_cases_is_always_told(result: dict) -> None:
    assert any(
        line.startswith("The best of 5 was picked after seeing these test volumes") for line in result["warnings"]
    )


def test_a_sound_comparison_has_no_other_warning(result: dict) -> None:
    assert len(result["warnings"]) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"teacher": -0.05}, "The teacher wide is no better than control (-5."),
        ({"seeds": {"fcn_r18--wide--kd": (0,)}}, "of kd there are fewer than 3"),
        ({"left_out": 3}, "3 volumes left out"),
        ({"tolerances": [1.0, 2.0]}, "different tolerances (1, 2)"),
        ({"licence": "CC BY-NC 4.0"}, "The data's licence is non-commercial (CC BY-NC 4.0)"),
        ({"unfinished": [{"run": "x--y--z"}]}, "1 run did not end and is missing from every figure here: x--y--z"),
    ],
)
def test_what_a_reader_must_know_is_told(changes: dict, told: str) -> None:
    found = fabricate_result(**changes)["warnings"]
    assert any(told in line for line in found), found


def test_one_seed_each_is_told() -> None:
    names = ["fcn_r18", *(f"fcn_r18--wide--{name}" for name in ("kd", "at", "dkd", "review"))]
    found = fabricate_result(seeds=dict.fromkeys(names, (0,)))["warnings"]
    assert any(line.startswith("One seed only") for line in found)


# The table


def test_the_table_fits_a_terminal_and_has_a_line_a_network() -> None:
    for result in (fabricate_result(), fabricate_result(TWO), fabricate_result(kind="runs")):
        table = as_text(result).split("\n\n")[0].splitlines()
        assert max(map(len, table)) <= 120
        assert len(table) == 1 + len(result["entries"])


def test_what_does_not_fit_is_left_out_from_the_right() -> None:
    result = fabricate_result()
    assert "minutes" in as_text(result)
    narrow = as_text(result, width=70).split("\n\n")[0].splitlines()
    assert "minutes" not in narrow[0]
    assert "gain" in narrow[0]


def test_the_table_tells_ranks_gains_and_corrected_p(result: dict) -> None:
    lines = as_text(result).splitlines()
    assert lines[0].split() == [
        *(
            "rank",
            "network",
            "Dice",
            "interval",
            "HD95",
            "mm",
            "gain",
            "interval",
            "p,",
            "Holm",
            "parameters",
            "minutes",
        )
    ]
    assert lines[1].startswith("-        teacher wide")
    assert lines[2].startswith("1 (1-1)  review")
    assert lines[-1] == result["answer"]
    assert lines[-2].startswith("warning: ")


def test_one_case_has_no_interval() -> None:
    result = fabricate_result()
    for entry in result["entries"]:
        for part in (entry["dice"], entry["gain"].get("dice", {})):
            part |= {"low": float("nan"), "high": float("nan")}
    assert "nan" not in as_text(result)
    assert as_text(result).count("no interval") == 6 + 4
