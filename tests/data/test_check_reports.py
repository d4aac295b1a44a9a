"""Claims about the check of reports, each with the message a user sees."""

from pathlib import Path

import pytest

from preceptor.data.case import Case
from preceptor.data.check_reports import check_reports
from preceptor.recipe_data import DataRecipe, ReportRecipe


class Words:
    """Counts words, plus the two special tokens."""

    limit = 16

    def count_tokens(self, texts):
        return [len(text.split()) + 2 for text in texts]


def cases(*reports):
    return [Case(f"case{i}", Path(f"/d/{i}.png"), report=report) for i, report in enumerate(reports)]


def only(findings, code):
    found = [item for item in findings if item.code == code]
    assert len(found) == 1, findings
    return found[0]


def test_a_missing_report_stops_a_teacher_that_reads():
    findings, facts = check_reports(cases("a", None), DataRecipe(), ReportRecipe(), Words())
    item = only(findings, "no-report")
    assert (item.level, item.where) == ("error", "case1")
    assert item.message == (
        "no report; the teacher needs one; remedy: write a report for each, or let them take part with an empty one: "
        "`data.missing_text: empty`"
    )
    assert facts["reports"]["cases"] == 1


def test_missing_text_empty_turns_the_error_into_a_warning():
    data = DataRecipe(missing_text="empty")
    findings, _ = check_reports(cases("a", None, " "), data, ReportRecipe(), Words())
    assert only(findings, "no-report").level == "warning"
    assert only(findings, "no-report").message == "no report; it takes part with an empty one"
    assert only(findings, "empty-report").where == "case2"


def test_without_a_reader_missing_reports_never_stop():
    findings, _ = check_reports(cases("a", None), DataRecipe(), None)
    item = only(findings, "no-report")
    assert item.level == "warning"
    assert item.message == "no report; some cases have one; remedy: write them if a network is to read reports"
    assert check_reports(cases(None, None), DataRecipe(), None)[0] == []


def test_a_set_without_any_report_is_told_once():
    findings, _ = check_reports(cases(*[None] * 50), DataRecipe(), ReportRecipe(), Words())
    assert only(findings, "no-reports").level == "error"
    assert only(findings, "no-reports").message.startswith("none of 50 cases; the teacher needs one; remedy: write")


def test_an_empty_report_is_as_bad_as_none():
    findings, _ = check_reports(cases("a", "  \n"), DataRecipe(), ReportRecipe(), Words())
    item = only(findings, "empty-report")
    assert item.level == "error"
    assert item.message.startswith("the report is empty; the teacher needs one; remedy: ")


def test_shared_reports_are_counted():
    findings, facts = check_reports(cases("a", "a", "a", "b"), DataRecipe(), None)
    item = only(findings, "duplicate-report")
    assert item.level == "note"
    assert item.message == "4 cases share 2 distinct reports; the most frequent is that of 3 cases: 'a'"
    assert facts["reports"]["distinct"] == 2


def test_one_report_for_all_is_a_warning():
    findings, _ = check_reports(cases("same", "same"), DataRecipe(), None)
    assert only(findings, "one-report").level == "warning"
    assert "2 cases, one text: 'same'; remedy: a network cannot learn from it" in only(findings, "one-report").message


def test_long_reports_are_listed_and_counted_with_the_length_that_would_keep_them():
    reports = ReportRecipe(length=8)
    findings, facts = check_reports(cases("a b", "a b c d e f g h", "a " * 10), DataRecipe(), reports, Words())
    long = [item for item in findings if item.code == "long-report"]
    assert [(item.where, item.level) for item in long] == [("case1", "warning"), ("case2", "warning")]
    assert long[1].message == (
        "12 tokens, 8 are kept; remedy: 2 of 3 reports lose their end; `reports.length: 12` keeps all, `12` keeps 95 %"
    )
    assert facts["reports"]["tokens"] == {
        "shortest": 4, "median": 10, "percentile_95": 12, "longest": 12, "kept": 8, "cut": 2, "limit": 16
    }  # fmt: skip


def test_reports_beyond_the_encoder_cannot_be_kept_by_a_setting():
    findings, _ = check_reports(cases("a " * 30, "b"), DataRecipe(), ReportRecipe(length=64), Words())
    assert only(findings, "long-report").message == (
        "32 tokens, 16 are kept; remedy: 1 of 2 reports lose their end; `reports.length: 16` is all that the encoder "
        "takes; shorten the reports"
    )


def test_an_encoder_that_is_not_at_hand_is_not_downloaded():
    findings, facts = check_reports(cases("a", "b"), DataRecipe(), ReportRecipe(encoder="some/encoder"))
    assert only(findings, "uncounted-reports").message == (
        "the encoder some/encoder is not loaded; remedy: `preceptor embed` loads it, and counts"
    )
    assert "tokens" not in facts["reports"]


def test_the_default_encoder_counts_without_a_download():
    _, facts = check_reports(cases("left lung", "right lung, lower"), DataRecipe(), ReportRecipe())
    assert facts["reports"]["tokens"]["longest"] >= 3


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ("temperature 38\ufffdC", "characters U+FFFD"),
        ("\ufeffBilateral", "characters U+FEFF"),
        ("a\x00b", "characters U+0000"),
        ("38\u00c2\u00b0C", "'38\u00c2\u00b0C' reads as '38\u00b0C' when decoded as UTF-8"),
    ],
)
def test_damage_by_a_wrong_encoding_is_found(report, told):
    findings, _ = check_reports(cases(report, "fine"), DataRecipe(), None)
    item = only(findings, "odd-characters")
    assert (item.level, item.where) == ("warning", "case0")
    assert item.message == f"{told}; remedy: save the reports as UTF-8 from the program that wrote them; " + (
        "do not repair them by hand"
    )


@pytest.mark.parametrize(
    "report", ["38 °C, β-lactam", "Überblähung beidseits", "左肺上叶感染", "deux\nlignes\tici", "é"]
)
def test_other_languages_are_not_damage(report):
    assert check_reports(cases(report, "fine"), DataRecipe(), None)[0] == []
