"""Judging uses the code that predicts, at the images' own size, for every case and class."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from preceptor.data.case import Case
from preceptor.data.layouts import read_cases
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import load_package, save_package
from preceptor.errors import DataError, UserError
from preceptor.evaluation_sets import home_set
from preceptor.judging import Judge, evaluate_package, join_tables, judge_seed
from preceptor.learning.arm import build_network, segmentor_of
from preceptor.progress import Progress
from preceptor.recipe import Recipe, validate_recipe
from preceptor.segmentors.base import Segmentation
from preceptor.text.encoders import build_encoder
from preceptor.text.features import embed


def save_untrained(folder: Path, recipe: Recipe, segmentor: dict) -> None:
    save_package(
        folder,
        build_network({**segmentor, "pretrained": None}, 0),
        segmentor=segmentor,
        preprocessing=Preprocessing.from_recipe(recipe.data),
        labels=recipe.data.labels,
        card={},
    )


@pytest.fixture
def package(small_recipe: dict, tmp_path: Path) -> Path:
    recipe = validate_recipe(small_recipe)
    segmentor = {"name": "unguided", "size": "tiny", "options": {}, "in_channels": 1, "classes": 2, "condition": None}
    save_untrained(tmp_path / "package", recipe, segmentor)
    return tmp_path / "package"


def test_every_case_is_judged_at_its_own_size(small_recipe: dict, package: Path, small_data: Path, tmp_path) -> None:
    for folder in ("images", "masks"):
        path = small_data / folder / "c12.png"
        Image.open(path).resize((50, 70), Image.Resampling.NEAREST).save(path)
    recipe = validate_recipe(small_recipe)
    cases = read_cases(recipe.data).of("test")
    rows = Judge(recipe.data, recipe.evaluate).rows(load_package(package), cases, 0, predictions=tmp_path / "out")
    assert [row["case"] for row in rows] == [case.name for case in cases]
    sizes = {row["case"]: row["tp"] + row["fp"] + row["fn"] + row["tn"] for row in rows}
    assert sizes["c12"] == 50 * 70
    assert np.asarray(Image.open(tmp_path / "out" / "c12.png")).shape == (70, 50)


def test_what_is_predicted_where_the_mask_is_to_be_ignored_does_not_matter(small_recipe, package, small_data) -> None:
    for path in (small_data / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[:, 20:] = 7
        Image.fromarray(mask).save(path)
    small_recipe["data"]["ignore"] = [7]
    recipe = validate_recipe(small_recipe)
    cases = read_cases(recipe.data).of("test")
    judge, network = Judge(recipe.data, recipe.evaluate), load_package(package)

    def answering(hidden: float) -> list[dict]:
        """Rows of a network that calls bright pixels foreground, and `hidden` on the ignored side."""

        def forward(image, condition=None):
            logits = torch.cat([-image[:, :1], image[:, :1]], dim=1)
            logits[:, 1, :, 20:] = hidden
            return Segmentation(logits, {})

        network.network.forward = forward
        return [{key: value for key, value in row.items() if key != "tn"} for row in judge.rows(network, cases, 0)]

    found = answering(hidden=9.0)
    assert found == answering(hidden=-9.0)
    assert all(0 < row["dice"] < 1 for row in found)


def test_a_package_is_judged_on_other_data_with_intervals(small_recipe, package: Path, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe)
    cases = read_cases(recipe.data).cases
    figures = evaluate_package(load_package(package), recipe.data, cases, tmp_path / "out")
    assert figures["dice"][1] <= figures["dice"][0] <= figures["dice"][2]
    with open(tmp_path / "out" / "cases.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 16


def test_labels_of_other_classes_are_refused(small_recipe, package: Path, tmp_path: Path) -> None:
    data = {**small_recipe["data"], "labels": {"background": 0, "circle": 255}}
    recipe = validate_recipe({**small_recipe, "data": data})
    with pytest.raises(UserError, match="not the package's classes"):
        evaluate_package(load_package(package), recipe.data, read_cases(recipe.data).cases, tmp_path / "out")


def test_joined_tables_keep_names_as_text_and_drop_what_was_not_judged_again(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "cases.csv").write_text(f"case,group,seed,class,dice\n007,NA,{seed},01,0.5\n")
    (tmp_path / "probes.csv").write_text("of,an,earlier,judgement\n")
    join_tables([tmp_path / "seed-0", tmp_path / "seed-1"], tmp_path)
    assert (tmp_path / "cases.csv").read_text() == "case,group,seed,class,dice\n007,NA,0,01,0.5\n007,NA,1,01,0.5\n"
    assert not (tmp_path / "probes.csv").exists()


def test_a_teacher_without_anything_to_probe_leaves_no_probes(small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe({**small_recipe, "evaluate": {"bootstrap": 20, "probes": False}})
    features = embed([""], build_encoder(recipe.reports), tmp_path / "reports.safetensors")
    segmentor = segmentor_of(recipe, "teacher", features)
    segmentor.pop("pretrained")
    save_untrained(tmp_path / "package", recipe, segmentor)
    cases = [replace(case, report="") for case in read_cases(recipe.data).of("test")[:2]]
    (tmp_path / "probes.csv").write_text("of,an,earlier,judgement\n")
    for probes in (False, True):  # with empty reports, there is nothing wrong to show
        chosen = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"probes": probes})})
        judged = home_set(chosen, cases, read_cases(recipe.data))
        judge_seed(tmp_path / "package", tmp_path, judged, 0, features, Progress(), "judge")
        assert not (tmp_path / "probes.csv").exists()


def judge_anew(folder: Path, recipe: Recipe, cases: tuple[Case, ...]) -> bool:
    """Whether `folder/package` is judged, not its judgement kept."""
    (folder / "cases.csv").write_text("kept")
    judged = home_set(recipe, cases, read_cases(recipe.data))
    judge_seed(folder / "package", folder, judged, 0, None, Progress(), "judge")
    return (folder / "cases.csv").read_text() != "kept"


def test_a_judgement_stands_for_these_cases_masks_and_labels_only(small_recipe, package: Path, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe)
    cases = read_cases(recipe.data).of("test")[:2]
    assert judge_anew(tmp_path, recipe, cases)
    assert not judge_anew(tmp_path, recipe, cases)
    for changes in (["data.mask_rule=threshold"], ["data.labels.square=[254, 255]"], ["data.ignore=[7]"]):
        assert judge_anew(tmp_path, validate_recipe(small_recipe, changes=changes), cases), changes
    assert judge_anew(tmp_path, recipe, cases)
    mask = cases[1].mask
    assert mask is not None
    Image.fromarray(np.asarray(Image.open(mask)).T).save(mask)
    assert judge_anew(tmp_path, recipe, cases), "another mask of the same name"
    assert judge_anew(tmp_path, recipe, tuple(replace(case, volume="v") for case in cases)), "as one volume"


def test_slices_of_a_volume_with_other_sizes_are_refused(small_recipe: dict, package: Path, small_data: Path) -> None:
    for folder in ("images", "masks"):
        path = small_data / folder / "c12.png"
        Image.open(path).resize((50, 70), Image.Resampling.NEAREST).save(path)
    recipe = validate_recipe(small_recipe)
    cases = [replace(case, volume="knee") for case in read_cases(recipe.data).of("test")]
    with pytest.raises(DataError, match="knee") as error:
        Judge(recipe.data, recipe.evaluate).rows(load_package(package), cases, 0)
    assert error.value.found == "32 x 32, 70 x 50"
    slices = recipe.evaluate.model_copy(update={"unit": "slice"})
    assert len(Judge(recipe.data, slices).rows(load_package(package), cases, 0)) == len(cases)
