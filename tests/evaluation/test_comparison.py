"""The page of a comparison: self-contained, escaped, and complete for odd comparisons."""

import re
from pathlib import Path
from typing import Any

import pytest

from preceptor.evaluation.comparison import write_page
from preceptor.storage import write_json

from .comparisons import fabricate_result
from .test_report import HOSTILE, Page


def page(folder: Path, result: dict[str, Any]) -> str:
    write_json(folder / "comparison.json", result)
    return write_page(folder).read_text(encoding="utf-8")


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


ODD: dict[str, dict[str, Any]] = {
    "plain": {},
    "two students": {"students": {"a": 0.0, "b": 0.02}},
    "many": {"students": {f"s{n}": 0.01 * n for n in range(6)}},
    "one class": {"classes": ("lesion",)},
    "few": {"groups": 4},
    "no groups": {"groups": None},
    "nothing distilled": {"gains": {}},
    "no networks but teachers": {"students": {}},
    "voxels": {"unit": "voxel"},
    "runs": {"kind": "runs"},
}


@pytest.mark.parametrize("kind", ODD)
def test_every_comparison_gives_a_whole_page(kind: str, tmp_path: Path) -> None:
    result = fabricate_result(**ODD[kind])
    found = Page(page(tmp_path, result))
    assert found.open == []
    ids = {values["id"] for _, values in found.tags if "id" in values}
    inner = {values["href"][1:] for tag, values in found.tags if tag == "a" and values["href"].startswith("#")}
    assert inner <= ids


def test_the_page_asks_nothing_of_anyone(tmp_path: Path) -> None:
    text = page(tmp_path, fabricate_result())
    found = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in found.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    policy = next(values["content"] for tag, values in found.tags if values.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    result = fabricate_result(
        classes=(HOSTILE, "b"), description=HOSTILE, name=HOSTILE, licence=HOSTILE, data={"layout": HOSTILE}
    )
    result["unfinished"] = [{"run": HOSTILE, "state": "failed", "reason": HOSTILE, "log": HOSTILE}]
    for entry in result["entries"]:
        entry |= {"student": HOSTILE, "report": f"runs/{HOSTILE}"}
    text = page(tmp_path, result)
    assert "<script" not in text
    assert "<img" not in text


def test_each_network_has_its_place_in_every_table(tmp_path: Path) -> None:
    result = fabricate_result(students={"a": 0.0, "b": 0.02})
    text = page(tmp_path, result)
    sections = {
        name: text.partition(f'<section id="{name}">')[2].partition("</section>")[0]
        for name in ("ranking", "gains", "stability", "classes", "cost")
    }
    assert sections["ranking"].count("<tr class=") == len(result["entries"]) == 11
    assert sections["stability"].count("<tr class=") == 10
    assert sections["classes"].count("<tr class=") == 2 * 11
    assert sections["cost"].count("<tr class=") == 11
    assert sections["gains"].count('class="row student"') == 8
    assert "a: Dice points over its control" in sections["gains"]
    assert "right ventricle" in sections["classes"]


def test_the_headline_is_the_answer(tmp_path: Path) -> None:
    result = fabricate_result()
    text = page(tmp_path, result)
    assert f"<h1>{result['answer'].split(' (')[0]}.</h1>" in text
    assert all(line in words(text) for line in result["warnings"])


def test_finished_runs_link_to_their_reports_and_unfinished_to_their_logs(tmp_path: Path) -> None:
    result = fabricate_result()
    result["entries"][1]["report"] = "runs/fcn_r18--wide--review/report.html"
    result["unfinished"] = [
        {"run": "x--y--z", "state": "failed", "reason": "the loss is not finite", "log": "runs/x--y--z/log.txt"},
        {"run": "x--y--w", "state": "waiting", "reason": "for teacher-y", "log": None},
    ]
    links = {values["href"] for tag, values in Page(page(tmp_path, result)).tags if tag == "a"}
    assert {"runs/fcn_r18--wide--review/report.html", "runs/x--y--z/log.txt"} <= links
    text = words((tmp_path / "comparison.html").read_text(encoding="utf-8"))
    assert "x--y--z failed the loss is not finite" in text
    assert "x--y--w waiting for teacher-y" in text


def test_the_unit_of_distances_is_told(tmp_path: Path) -> None:
    assert "the files state no spacing" in words(page(tmp_path, fabricate_result(unit="voxel")))


def test_a_network_whose_cost_is_unknown_has_dashes(tmp_path: Path) -> None:
    result = fabricate_result()
    for entry in result["entries"]:
        for key in ("parameters", "gflops", "latency_ms", "memory_mb", "epochs", "minutes"):
            entry.pop(key)
    text = page(tmp_path, result)
    assert "scatter" not in text.partition("</style>")[2]
