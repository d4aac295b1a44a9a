"""The report: self-contained, small, safe against what other people wrote, and complete for odd runs."""

import html.parser
import itertools
import re
import shutil
from pathlib import Path

import pytest

from preceptor.errors import StorageError
from preceptor.evaluation.report import count, headline, plain, score, write_report
from preceptor.storage import read_json, write_json

from .fabricate import fabricate_run

HOSTILE = '<script>alert("x")</script> & "quoted" <img src=http://example.org/a.png onerror=alert(1)>'


class Page(html.parser.HTMLParser):
    """Tags, ids, links and open elements of a page."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_run(tmp_path_factory.mktemp("fabricated"), cases=40, seeds=(0, 1), size=32)


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_is_one_small_file_without_scripts_or_outside_resources(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,")), tag
    assert "@import" not in text
    assert "url(" not in text
    assert len(text.encode()) < 6e6


def test_the_answer_is_the_headline_and_a_leak_is_bold(run: Path, text: str) -> None:
    headline = re.search(r"<h1>(.*?)</h1>", text)
    assert headline is not None
    assert read_json(run / "summary.json")["answer"].startswith(headline[1].rstrip("."))
    assert re.search(r"<strong>Leak: [^<]*</strong>", text)


def test_every_arm_has_its_curve_its_overlays_and_its_cost(text: str) -> None:
    for arm in ("teacher", "control", "student"):
        assert text.count(f'class="line {arm}"') >= 3
        assert f'class="panel {arm}"' in text
    assert text.count('<article class="case">') == 12
    for told in ("5.91&nbsp;M", "21.4&nbsp;ms"):
        assert told.replace("&nbsp;", " ") in text.replace("&nbsp;", " ")


def test_each_case_embeds_its_picture_once(text: str) -> None:
    assert text.count("data:image/jpeg;base64,") == text.count('<article class="case">')


def test_pictures_have_names_and_headings_do_not_skip(text: str) -> None:
    page = Page(text)
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" and a.get("role") == "img")
    assert all(a.get("aria-hidden") for tag, a in page.tags if tag == "svg" and a.get("role") != "img")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")} <= set(ids)


def test_hostile_texts_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, cases=6, seeds=(0,), size=32, report=HOSTILE)
    summary = read_json(run / "summary.json")
    summary |= {
        "name": HOSTILE,
        "licence": HOSTILE,
        "answer": HOSTILE,
        "warnings": [HOSTILE],
        "data": {HOSTILE: HOSTILE},
    }
    write_json(run / "summary.json", summary)
    write_json(run / "data.json", {"findings": [{"message": HOSTILE}]})
    text = write_report(run).read_text(encoding="utf-8")
    tags = {tag for tag, _ in Page(text).tags}
    assert not tags & {"script", "img", "iframe", "object"}
    assert "&lt;script&gt;" in text


def test_a_page_without_the_pictures_still_has_the_numbers(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    text = write_report(copy, data_root=tmp_path / "nowhere").read_text(encoding="utf-8")
    assert text.count("The picture could not be shown") == 12
    assert "Dice, pooled pixels" in text


@pytest.mark.parametrize("arms", [("control",), ("control", "student"), ("teacher", "control")])
def test_runs_with_fewer_arms_have_a_report(tmp_path: Path, arms: tuple[str, ...]) -> None:
    run = fabricate_run(tmp_path, cases=4, seeds=(0,), size=32, arms=arms)
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count('class="card ') == len(arms)


def test_the_same_run_gives_the_same_page(run: Path, text: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == text


def test_a_run_that_was_not_evaluated_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"summary\.json"):
        write_report(tmp_path)


def test_the_headline_leaves_the_figures_to_the_line_below() -> None:
    assert headline("A beats B (really) by 3 (p = 0.01; 9 cases).") == ("A beats B (really) by 3.", "p = 0.01; 9 cases")
    assert headline("Nothing was compared.") == ("Nothing was compared.", "")


def test_numbers_are_short_and_absent_ones_a_dash() -> None:
    assert [count(v) for v in (None, 12, 1_204_321, 42_177_148)] == ["–", "12", "1.2 M", "42.2 M"]
    assert [score(0.12345), score(3.14159, "hd95"), score(None)] == ["0.123", "3.14", "–"]
    assert (
        plain({"train": 3, "ok": True, "none": None, "list": [0.12345, "a"]})
        == "train: 3, ok: yes, none: –, list: 0.1235, a"
    )
