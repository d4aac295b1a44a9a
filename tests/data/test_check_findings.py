"""Claims about how findings are worded and shown."""

from preceptor.data.case import Finding
from preceptor.data.check_findings import finding, grouped, render_findings, split_message


def test_a_message_is_what_was_found_and_the_remedy():
    item = finding("error", "nan-image", "case1", "3 of 9 values", "repair it")
    assert item.message == "3 of 9 values; remedy: repair it"
    assert split_message(item.message) == ("3 of 9 values", "repair it")
    assert split_message("only this") == ("only this", "")


def test_a_group_shows_its_title_once_twenty_offenders_the_rest_counted_and_the_remedy_once():
    items = [finding("error", "nan-image", f"case{i}", f"{i + 1} of 90 values", "repair it") for i in range(25)]
    lines = render_findings(items).splitlines()
    assert lines[0] == "ERRORS"
    assert lines[1] == "  an image holds values that are not numbers (NaN or infinity) [nan-image]: 25"
    assert lines[2] == "    - case0: 1 of 90 values"
    assert len([line for line in lines if line.startswith("    - ")]) == 20
    assert lines[-2:] == ["    ... and 5 more", "    remedy: repair it"]


def test_different_remedies_stay_with_their_offenders():
    items = [finding("error", "x", "a", "one", "do this"), finding("error", "x", "b", "two", "do that")]
    assert "    - a: one. Remedy: do this" in render_findings(items)
    assert "    remedy:" not in render_findings(items)


def test_errors_come_first_and_unknown_codes_show_their_own_words():
    items = [Finding("note", "n-n", "a", "m"), Finding("error", "e-e", "b", "m"), Finding("note", "n-n", "c", "m")]
    assert [(level, code, len(of)) for level, code, of in grouped(items)] == [("error", "e-e", 1), ("note", "n-n", 2)]
    text = render_findings(items)
    assert text.index("ERRORS") < text.index("NOTES")
    assert "  n n [n-n]: 2" in text


def test_offenders_with_one_and_the_same_fault_are_listed_in_a_row():
    items = [finding("error", "undeclared-value", f"case{i:02d}", "stores 255", "declare it") for i in range(25)]
    text = " ".join(render_findings(items).split())
    assert "[undeclared-value]: 25 - stores 255: case00, case01, case02," in text
    assert "case18, case19 ... and 5 more remedy: declare it" in text
    assert "case20" not in text
