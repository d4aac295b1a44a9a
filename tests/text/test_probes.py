"""Wrong reports are wrong in the way their name says."""

from preceptor.text.probes import shuffled, wrong_reports

REPORTS = ["upper left lung"] * 3 + ["lower right lung"] * 2 + ["all left lung"]


def test_no_case_keeps_its_wording_when_that_is_possible() -> None:
    for seed in range(20):
        dealt = shuffled(REPORTS, seed)
        assert sorted(dealt) == sorted(REPORTS)
        assert all(new != old for new, old in zip(dealt, REPORTS, strict=True))


def test_shuffling_is_drawn_by_the_seed() -> None:
    reports = [f"report {index}" for index in range(30)]
    assert shuffled(reports, 1) == shuffled(reports, 1) != shuffled(reports, 2)


def test_equal_reports_and_none_at_all_are_survived() -> None:
    assert shuffled(["same", "same"], 0) == ["same", "same"]
    assert shuffled([], 0) == []


def test_probes_are_empty_shuffled_and_mirrored() -> None:
    wrong = wrong_reports(REPORTS, 0)
    assert wrong["empty"] == [""] * 6
    assert wrong["wrong_side"][0] == "upper right lung"
    assert set(wrong) == {"empty", "shuffled", "wrong_side"}
