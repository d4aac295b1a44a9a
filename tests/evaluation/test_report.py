"""The report: self-contained, small, safe against what other people wrote, and complete for odd runs."""

import html.parser
import itertools
import re
import shutil
from pathlib import Path

import pytest

from preceptor.errors import StorageError
from preceptor.evaluation.metrics import FAMILIES
from preceptor.evaluation.report import count, headline, plain, score, write_report
from preceptor.storage import read_json, write_json

from .fabricate import fabricate_run, fabricate_volumes

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


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run that was judged volume by volume, with several classes and teachers."""
    run = fabricate_volumes(tmp_path_factory.mktemp("hearts"), patients=6, size=32)
    return write_report(run).read_text(encoding="utf-8")


def test_what_is_scored_and_in_which_unit_is_said_in_words(hearts: str, text: str) -> None:
    assert "12 volumes of 6 patients" in hearts
    assert "Each score is of a whole volume." in hearts
    assert "Distances are in voxels: the files state no spacing" in hearts
    assert "Each volume by itself" in hearts
    assert re.search(r"patient\d_E[SD], slice \d of 4", hearts)
    assert "40 cases of 20 groups" in text
    assert "Distances are in pixels" in text
    assert "volume" not in re.sub(
        r"diagonal of the image or volume|(?s:<pre.*?</pre>)|<style>(?s:.*?)</style>", "", text
    )


def test_every_class_has_its_own_colour_with_a_legend(hearts: str, text: str) -> None:
    page = Page(hearts)
    legend = re.search(r'<p class="legend on-film">(.*?)</p>', hearts)
    assert legend is not None
    assert re.findall(r'class="swatch (k\d)".*?</svg>(\w+)</span>', legend[1]) == [
        ("k0", "right_ventricle"),
        ("k1", "myocardium"),
        ("k2", "left_ventricle"),
    ]
    for role in ("region", "prediction"):
        found = {a["class"] for tag, a in page.tags if tag == "use" and (a.get("class") or "").startswith(role)}
        assert found == {f"{role} k{index}" for index in range(3)}
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"][1:] for tag, a in page.tags if tag == "use"} <= ids
    for index in range(10):
        assert re.search(rf"\.k{index} {{ --class: #[0-9a-f]{{6}}; }}", text)
    assert 'class="swatch' not in text
    assert text.count('<use class="reference"') == 3 * text.count('<article class="case">')


def test_classes_are_told_by_name_with_intervals_for_every_arm(hearts: str) -> None:
    table = hearts[hearts.index("<h3>By class</h3>") :].partition("</table>")[0]
    for name in ("right_ventricle", "myocardium", "left_ventricle"):
        assert f'<th scope="row">{name}</th>' in table
    assert len(re.findall(r'class="interval">\d', table)) == 3 * 4 * 4


def test_each_of_several_teachers_has_its_label_its_shape_and_its_gain(hearts: str, text: str) -> None:
    for style, name in (("teacher", "wide"), ("teacher t2", "words")):
        assert f'<article class="card {style}">' in hearts
        assert f'class="line {style}"' in hearts
        assert f"Teacher {name} over control" in hearts
        assert re.search(rf'class="panel {style}">', hearts)
    shapes = [re.search(rf'card {style}">\s*<h2>(<svg.*?</svg>)', hearts) for style in ("teacher", "teacher t2")]
    assert shapes[0] is not None
    assert shapes[1] is not None
    assert shapes[0][1] != shapes[1][1]
    assert "another network: unet_r50, base" in hearts
    assert "The teacher-words reads its reports" in hearts
    assert "teacher t2" not in text
    assert "Teacher over control" in text


def test_every_family_of_metrics_states_its_rule(text: str) -> None:
    families = re.findall(r'<tr class="family"><th[^>]*><span>(.*?)</span>(?:<span class="rule">: (.*?)</span>)?', text)
    assert ("As MONAI averages: absent structures dropped", FAMILIES[-1].rule) in families
    assert any(title.startswith("As published for TransUNet") and "a missed one" in rule for title, rule in families)
    assert "Holm corrects within a family of metrics" in text


def test_operations_are_among_the_costs(text: str, run: Path, tmp_path: Path) -> None:
    cost = text[text.index('<section id="cost">') :]
    assert re.search(r"GFLOPs.*12\.3<.*0\.567<|GFLOPs.*0\.567<.*12\.3<", cost, re.DOTALL)
    copy = shutil.copytree(run, tmp_path / "older")
    summary = read_json(copy / "summary.json")
    for entry in summary["arms"].values():
        del entry["gflops"], entry["dice_transunet"], entry["hd95_nan_ignore"]
    del summary["scored"]
    write_json(copy / "summary.json", summary)
    older = write_report(copy).read_text(encoding="utf-8")
    assert "As published for TransUNet" not in older
    assert "Each case by itself" in older
