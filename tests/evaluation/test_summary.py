"""The summary of a run: deterministic, complete, and honest in its sentence."""

import json

import pytest

from preceptor.errors import DataError
from preceptor.evaluation.metrics import FAMILIES
from preceptor.evaluation.scores import METRICS
from preceptor.evaluation.summary import summarise
from preceptor.recipe_evaluate import EvaluateRecipe
from preceptor.storage import write_json

from .fabricate import fabricate_rows

QUICK = EvaluateRecipe(bootstrap=200)


def three_arms(cases: int = 20, student: float = 0.05, **options) -> dict:
    gains = {"teacher": 0.1, "control": 0.0, "student": student}
    return {arm: fabricate_rows(cases, arm=arm, gain=gain, **options) for arm, gain in gains.items()}


def test_the_summary_has_every_metric_with_its_interval_in_every_arm() -> None:
    found = summarise(three_arms(seeds=(0, 1)), name="x", settings=QUICK)
    for arm in found["arms"].values():
        for metric in METRICS:
            assert arm[metric]["low"] <= arm[metric]["mean"] <= arm[metric]["high"]
        assert [row["seed"] for row in arm["per_seed"]] == [0, 1]
        assert arm["seed_spread"]["dice"]["sd"] > 0
        assert arm["kinds"] == {"both": 40, "missed": 0, "false_alarm": 0, "empty": 0}
    assert set(found["gains"]) == {"student_over_control", "teacher_over_control"}


def test_the_same_rows_give_the_same_summary(tmp_path) -> None:
    for name in "ab":
        write_json(tmp_path / name, summarise(three_arms(), name="x", settings=QUICK))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    json.loads((tmp_path / "a").read_text())


def test_holm_covers_all_gains_within_a_family_of_metrics_and_families_do_not_cost_each_other() -> None:
    gains = summarise(three_arms(), name="x", settings=QUICK)["gains"]
    for family in FAMILIES:
        together = [entry[metric] for entry in gains.values() for metric in family.metrics]
        smallest = min(gain["p"] for gain in together)
        assert len(together) == 2 * len(family.metrics)
        assert all(gain["p_holm"] >= gain["p"] for gain in together)
        assert min(gain["p_holm"] for gain in together) == pytest.approx(min(1, smallest * len(together)))


@pytest.mark.parametrize(
    ("gain", "words"),
    [(0.05, "beats its control by 4."), (-0.05, "is worse than its control by"), (0.0, "does not differ measurably")],
)
def test_the_answer_says_what_the_numbers_say(gain: float, words: str) -> None:
    found = summarise(three_arms(student=gain, cases=40), name="x", settings=QUICK)
    assert words in found["answer"]
    assert "95 % interval" in found["answer"]
    assert "40 cases, 1 seed" in found["answer"]


def test_few_cases_give_no_verdict_and_no_p() -> None:
    found = summarise(three_arms(cases=5), name="x", settings=QUICK)
    gain = found["gains"]["student_over_control"]["dice"]
    assert gain["few"]
    assert gain["p"] is None
    assert gain["p_holm"] is None
    assert found["answer"].startswith("Too few cases to tell")
    assert found["answer"].endswith("no p-value; 5 cases, 1 seed).")
    assert any("Fewer than six" in text for text in found["warnings"])


def test_patients_are_the_units_where_cases_share_them() -> None:
    found = summarise(three_arms(cases=20, groups=5), name="x", settings=QUICK)
    assert found["gains"]["student_over_control"]["dice"]["few"]
    assert found["groups"] == 5


def test_arms_may_have_different_seeds() -> None:
    arms = three_arms(seeds=(0, 1)) | {"teacher": fabricate_rows(arm="teacher", gain=0.1, seeds=(9,))}
    found = summarise(arms, name="x", settings=QUICK)
    assert found["gains"]["teacher_over_control"]["dice_pooled"]["mean"] > 0.05
    assert found["seeds"] == [0, 1, 9]


def test_different_case_lists_stop_unless_intersected() -> None:
    arms = three_arms() | {"student": fabricate_rows(15, arm="student")}
    with pytest.raises(DataError, match="different cases"):
        summarise(arms, name="x", settings=QUICK)
    found = summarise(arms, name="x", settings=QUICK, intersect=True)
    assert found["cases"] == 15
    assert "5 cases were left out, since not every arm was judged on them." in found["warnings"]


def probes(shuffled: float):
    import pandas as pd

    tables = {"empty": -0.3, "shuffled": shuffled, "wrong_side": 0.1}
    return pd.concat([fabricate_rows(arm="teacher", gain=g).assign(probe=name) for name, g in tables.items()])


def test_a_teacher_that_ignores_its_reports_is_called_out() -> None:
    blind = summarise(three_arms(), name="x", settings=QUICK, probes=probes(0.1))
    assert blind["probes"]["text_blind"]
    assert blind["probes"]["message"] in blind["warnings"]
    reads = summarise(three_arms(), name="x", settings=QUICK, probes=probes(-0.1))
    assert not reads["probes"]["text_blind"]
    assert reads["probes"]["shuffled"]["drop"]["mean"] == pytest.approx(0.2, abs=0.01)


def test_a_leak_and_a_licence_are_carried_into_the_warnings() -> None:
    leak = {"score": 0.7, "leaks": True, "message": "the reports describe the mask"}
    found = summarise(three_arms(), name="x", settings=QUICK, leak=leak, licence="CC BY-NC 4.0")
    assert found["warnings"][0] == "Leak: the reports describe the mask."
    assert any("non-commercial" in text for text in found["warnings"])


def test_a_teacher_no_better_than_the_control_is_told() -> None:
    arms = three_arms() | {"teacher": fabricate_rows(arm="teacher", gain=-0.05)}
    assert any("no better" in text for text in summarise(arms, name="x", settings=QUICK)["warnings"])


def test_facts_of_an_arm_are_copied() -> None:
    found = summarise(three_arms(), name="x", settings=QUICK, facts={"student": {"parameters": 12, "needs": "none"}})
    assert found["arms"]["student"]["parameters"] == 12


def test_one_arm_alone_is_told_without_a_comparison() -> None:
    found = summarise({"control": fabricate_rows()}, name="x", settings=QUICK)
    assert found["gains"] == {}
    assert found["answer"].startswith("The control reaches Dice 0.6")


def test_a_teacher_that_does_better_without_its_report_is_called_misled() -> None:
    from preceptor.evaluation.verdict import reading

    def drop(mean: float) -> dict:
        return {"drop": {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}}

    blind, message = reading({"right": {}, "empty": drop(-0.11), "shuffled": drop(0.03)}, 0.01)
    assert not blind
    assert "mislead it: with an empty one its Dice is 11.0 points higher" in message
    assert "mislead" not in reading({"right": {}, "empty": drop(0.4), "shuffled": drop(0.3)}, 0.01)[1]


def several(**gains: float) -> dict:
    arms = {"teacher-big": 0.1, "teacher-words": 0.08, "control": 0.0, "student": 0.05} | gains
    return {arm.replace("_", "-"): fabricate_rows(arm=arm, gain=gain) for arm, gain in arms.items()}


def test_each_of_several_teachers_is_compared_and_called_by_its_name() -> None:
    arms = several() | {"teacher-big": fabricate_rows(arm="teacher-big", gain=-0.05)}
    found = summarise(arms, name="x", settings=QUICK, probes={"teacher-words": probes(0.08)})
    assert list(found["gains"]) == ["student_over_control", "teacher-big_over_control", "teacher-words_over_control"]
    assert any(text.startswith("The teacher-big is no better than the control") for text in found["warnings"])
    assert set(found["probes"]) == {"teacher-words"}
    assert found["probes"]["teacher-words"]["message"].startswith("The teacher-words hardly reads")
    assert found["probes"]["teacher-words"]["message"] in found["warnings"]


def test_several_teachers_without_a_student_are_told_in_one_sentence() -> None:
    arms = {name: rows for name, rows in several().items() if name != "student"}
    told = summarise(arms, name="x", settings=QUICK)["answer"]
    assert told.startswith("Nothing was distilled; over the control, in Dice points: teacher-big ")
    assert "teacher-words" in told


def test_scores_of_volumes_are_told_as_volumes_of_patients() -> None:
    found = summarise(three_arms(20, groups=10), name="x", settings=QUICK, unit="voxel", scored="volume")
    assert "20 volumes of 10 patients, 1 seed" in found["answer"]
    assert (found["unit"], found["scored"]) == ("voxel", "volume")
    few = summarise(three_arms(8, groups=4), name="x", settings=QUICK, scored="volume")["answer"]
    assert few.startswith("Too few patients to tell")
