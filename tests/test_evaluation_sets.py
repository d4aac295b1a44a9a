"""Other data sets: read and checked before training, judged by every arm as it is, in their own classes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.compare import compare_runs
from preceptor.data.case import Case, CaseSet
from preceptor.data.layouts import read_cases
from preceptor.errors import DataError, RecipeError
from preceptor.evaluation_sets import check_other_set, home_set, other_set
from preceptor.judging import Judge
from preceptor.pipeline import run
from preceptor.progress import Progress
from preceptor.recipe import Recipe, read_recipe, validate_recipe

HOME = {"background": 0, "right": 1, "muscle": 2, "left": 3}


def other_data(root: Path, images: str = "img", masks: str = "labelcol", cases: int = 6) -> Path:
    """Pictures of 24 x 24 whose left half holds class 100 and whose lower right holds class 200."""
    for name in (images, masks):
        (root / name).mkdir(parents=True)
    noise = np.random.default_rng(5)
    for index in range(cases):
        mask = np.zeros((24, 24), np.uint8)
        mask[:, :12], mask[12:, 12:] = 100, 200
        image = noise.integers(0, 255, (24, 24), dtype=np.uint8)
        for folder, pixels in ((images, image), (masks, mask)):
            Image.fromarray(pixels).save(root / folder / f"p{index // 2}-IM-{index}.png")
    return root


def recipe_of(small_recipe: dict, root: Path | str, **part: object) -> Recipe:
    """A recipe of four classes with one other data set of two, `left` and `heart`."""
    data = {**small_recipe["data"], "labels": HOME}
    other = {"root": str(root), "labels": {"none": 0, "left": 100, "heart": 200}, **part}
    evaluate = {"bootstrap": 50, "elsewhere": {"clinic": other}}
    return validate_recipe({**small_recipe, "data": data, "evaluate": evaluate})


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({}, "'heart' is no class of the recipe, which has right, muscle, left; say which of them count as heart"),
        ({"classes": {"heart": "hart"}}, "'hart' is no class of the recipe"),
        ({"classes": {"lung": "left", "heart": []}}, "'lung' is no class of this data set, which has left, heart"),
        ({"classes": {"heart": ["muscle", "left"]}}, "'left' counts as left and as heart"),
        ({"classes": {"heart": [], "left": []}}, "nothing can be judged"),
        ({"classes": {"heart": []}, "group_pattern": "(p"}, "is no regular expression"),
        ({"classes": {"heart": []}, "group_pattern": "(p)(q)"}, "has 2 groups in brackets"),
        ({"classes": {"heart": []}, "norm": "unit"}, "did you mean normalize"),
        ({"classes": {"heart": []}, "clip": [3.0, 1.0]}, "low below high"),
    ],
)
def test_a_faulty_description_of_other_data_is_told(small_recipe: dict, part: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=told.replace("(", r"\(").replace(")", r"\)")):
        recipe_of(small_recipe, tmp_path, **part)


def test_classes_are_joined_and_those_that_are_not_shared_left_out(small_recipe: dict, tmp_path: Path) -> None:
    root = other_data(tmp_path / "clinic")
    found = other_set(recipe_of(small_recipe, root, classes={"heart": ["right", "muscle"]}), "clinic")
    assert found.counted == (0, 2, 2, 1)
    assert found.classes == {"left": ("left",), "heart": ("right", "muscle")}
    alone = other_set(recipe_of(small_recipe, root, classes={"heart": []}), "clinic")
    assert alone.counted == (0, 0, 0, 1)
    assert list(alone.classes) == ["left"]


class _Answering:
    """A judge whose network answers the same map of the recipe's classes for every picture."""

    def __init__(self, judge: Judge, answer: np.ndarray) -> None:
        self.judge, self.answer = judge, answer

    def rows(self, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch) -> list[dict]:
        probability = np.eye(4, dtype=np.float32)[self.answer].transpose(2, 0, 1)
        monkeypatch.setattr(Judge, "answer", lambda *_: probability)
        return self.judge.rows(None, cases, 0)  # type: ignore[arg-type]


def test_scores_are_those_of_the_other_sets_classes(small_recipe: dict, tmp_path: Path, monkeypatch) -> None:
    root = other_data(tmp_path / "clinic")
    answer = np.zeros((24, 24), np.uint8)
    answer[:, :12], answer[12:18, 12:], answer[18:, 12:], answer[:12, 12:] = 3, 1, 2, 1
    joined = other_set(recipe_of(small_recipe, root, classes={"heart": ["right", "muscle"]}), "clinic")
    judge = _Answering(Judge(joined.data, joined.settings, joined.counted), answer)
    scores = {row["class"]: row["dice"] for row in judge.rows(joined.cases[:1], monkeypatch)}
    assert scores["left"] == 1
    assert scores["heart"] == pytest.approx(2 / 3)  # right and muscle are right below, and wrong above
    alone = other_set(recipe_of(small_recipe, root, classes={"heart": []}), "clinic")
    judge = _Answering(Judge(alone.data, alone.settings, alone.counted), answer)
    (row,) = judge.rows(alone.cases[:1], monkeypatch)
    assert (row["class"], row["dice"]) == ("left", 1)  # what is predicted of other classes does not matter


def test_patients_are_found_in_names(small_recipe: dict, tmp_path: Path) -> None:
    root = other_data(tmp_path / "clinic")
    part = {"classes": {"heart": []}, "group_pattern": "^(.+)-IM"}
    found = other_set(recipe_of(small_recipe, root, **part), "clinic")
    assert sorted({str(case.group) for case in found.cases}) == ["p0", "p1", "p2"]
    whole = read_cases(recipe_of(small_recipe, root, **{**part, "group_pattern": "p."}).evaluate.elsewhere["clinic"])
    assert {case.group for case in whole.cases} == {"p0", "p1", "p2"}
    lost = recipe_of(small_recipe, root, **{**part, "group_pattern": "^(q.+)-IM"})
    with pytest.raises(DataError, match=r"finds nothing in it[\s\S]*evaluate.elsewhere.clinic.group_pattern"):
        check_other_set(other_set(lost, "clinic"), lost, [], tmp_path / "check", Progress())


def test_errors_name_the_keys_of_the_other_data_set(small_recipe: dict, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluate.elsewhere.clinic.root: no folder is named"):
        other_set(recipe_of(small_recipe, "", classes={"heart": []}), "clinic")
    root = other_data(tmp_path / "clinic")
    with pytest.raises(DataError, match=r"set `evaluate.elsewhere.clinic.split.rule: random`"):
        other_set(recipe_of(small_recipe, root, classes={"heart": []}, splits=["test"]), "clinic")
    with pytest.raises(RecipeError, match=r"evaluate.elsewhere.clinic.unit: the cases are no slices"):
        other_set(recipe_of(small_recipe, root, classes={"heart": []}, unit="volume"), "clinic")


def test_a_picture_that_was_learned_from_is_refused_wherever_it_lies(small_recipe: dict, tmp_path: Path) -> None:
    root = other_data(tmp_path / "clinic")
    recipe = recipe_of(small_recipe, root, classes={"heart": []})
    found = other_set(recipe, "clinic")
    copied = tmp_path / "copy.bmp"
    Image.open(found.cases[3].image).save(copied)
    learned = [replace(found.cases[3], name="scan-7", image=copied, split="train")]
    with pytest.raises(DataError, match=r"p1-IM-3: the same pixels as scan-7 \(train\)"):
        check_other_set(found, recipe, learned, tmp_path / "check", Progress())
    assert not (tmp_path / "check" / "data.json").exists()
    check_other_set(found, recipe, [], tmp_path / "check", Progress())
    assert (tmp_path / "check" / "data.json").exists()


def test_values_of_other_data_are_prepared_as_their_part_says(small_recipe: dict, tmp_path: Path) -> None:
    clipped = {**small_recipe, "data": {**small_recipe["data"], "clip": [-100.0, 100.0]}}
    for part, expected in (
        ({}, ("zscore", [-100.0, 100.0])),
        ({"normalize": "unit"}, ("unit", None)),
        ({"clip": [0.0, 50.0]}, ("zscore", [0.0, 50.0])),
    ):
        recipe = recipe_of(clipped, tmp_path, classes={"heart": []}, **part)
        data = recipe.evaluate.elsewhere["clinic"].as_data(recipe.data)
        assert (data.normalize, data.clip) == expected


@pytest.fixture
def other_squares(small_data: Path, tmp_path: Path) -> Path:
    """Pictures like those of `small_data`, darker, without reports; two a patient."""
    root = tmp_path / "other"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        for index in range(8):
            pixels = np.asarray(Image.open(small_data / folder / f"c{index:02d}.png"))
            pixels = (pixels * 0.6).astype(np.uint8) if folder == "images" else np.where(pixels > 0, 9, 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"q{index // 2}-{index}.png")
    return root


def test_every_arm_is_judged_on_other_data_and_judgements_are_kept(
    small_recipe: dict, other_squares: Path, tmp_path: Path
) -> None:
    """Added to a finished run, other data train nothing anew; the report has a section for them."""
    plain = {key: value for key, value in small_recipe.items() if key not in ("teacher", "distill")}
    teacher = {"segmentor": {"name": "unguided", "size": "tiny"}, "privilege": "class_mean"}
    content = {**plain, "teacher": teacher, "distill": [{"name": "kd"}]}
    outcome = run(validate_recipe(content), tmp_path / "run")
    assert outcome.summary is not None
    assert "elsewhere" not in outcome.summary
    trained = {path: path.stat().st_mtime_ns for path in outcome.folder.rglob("weights.safetensors")}
    other = {"root": str(other_squares), "labels": {"nothing": 0, "square": 9}, "group_pattern": "^(.+)-"}
    content = {**content, "evaluate": {"bootstrap": 50, "elsewhere": {"clinic-b": other}}}
    outcome = run(validate_recipe(content), tmp_path / "run", only=["evaluate"])
    assert outcome.summary is not None
    found = outcome.summary["elsewhere"]["clinic-b"]
    assert set(found["arms"]) == {"teacher", "control", "student"}
    assert (found["cases"], found["groups"], found["unshared"]) == (8, 4, [])
    assert found["arms"]["student"]["parameters"] == outcome.summary["arms"]["student"]["parameters"]
    assert set(found["drop"]["student"]) == {"mean", "low", "high", "home", "there"}
    home = outcome.summary["arms"]["student"]["dice"]["mean"]
    assert found["drop"]["student"]["mean"] == pytest.approx(home - found["arms"]["student"]["dice"]["mean"])
    assert all(path.stat().st_mtime_ns == before for path, before in trained.items() if "seed" in str(path))
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "On other data: clinic-b" in page
    judged = {path: path.stat().st_mtime_ns for path in outcome.folder.glob("*/seed-0/elsewhere/*/judged.json")}
    assert len(judged) == 3
    run(validate_recipe(content), tmp_path / "run")
    assert all(path.stat().st_mtime_ns == before for path, before in judged.items())
    compared = compare_runs([outcome.folder], tmp_path / "compared")
    entries = compared.result["elsewhere"]["clinic-b"]["entries"]
    assert {entry["role"] for entry in entries} == {"teacher", "control", "student"}
    assert "On other data: clinic-b" in compared.page.read_text(encoding="utf-8")
    assert (tmp_path / "compared" / "ranking-clinic-b.csv").read_text().count("\n") == 4
    assert json.loads((outcome.folder / "elsewhere" / "clinic-b" / "data.json").read_text())["recipe"]["root"]


def test_a_teacher_that_reads_is_left_out_where_there_are_no_reports(
    small_recipe: dict, other_squares: Path, tmp_path: Path
) -> None:
    other = {"root": str(other_squares), "labels": {"nothing": 0, "square": 9}}
    content = {**small_recipe, "evaluate": {"bootstrap": 50, "elsewhere": {"clinic-b": other}}}
    outcome = run(validate_recipe(content), tmp_path / "run")
    assert outcome.summary is not None
    found = outcome.summary["elsewhere"]["clinic-b"]
    assert list(found["arms"]) == ["control", "student"]
    assert found["left_out"] == ["teacher"]
    assert any("Left out" in warning and "teacher" in warning for warning in found["warnings"])


def test_every_arm_is_judged_at_home_even_where_test_cases_say_nothing(tmp_path: Path) -> None:
    """A teacher of attributes then answers to unknown ones; elsewhere it is left out."""
    cases = (Case("a", tmp_path / "a.png", tmp_path / "a-mask.png", "test"),)
    recipe = read_recipe("c2fvl/phantoms")
    home = home_set(recipe, cases, CaseSet(tmp_path, "folders", cases))
    assert home.shows("attributes")
    assert home.shows("report")
    assert not replace(home, name="clinic-b").shows("attributes")


def test_missing_other_data_stop_a_run_before_its_training(small_recipe: dict, tmp_path: Path) -> None:
    other = {"root": str(tmp_path / "nowhere"), "labels": {"nothing": 0, "square": 9}}
    content = {**small_recipe, "evaluate": {"elsewhere": {"clinic-b": other}}}
    with pytest.raises(DataError, match=r"evaluate.elsewhere.clinic-b: .*nowhere: the data folder does not exist"):
        run(validate_recipe(content), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/seed-*"))
