"""Every shipped recipe is sound; the published ones hold the published values and run on folders of their layouts."""

import csv
import json

import pytest
import torch

from preceptor.data.layouts import read_cases
from preceptor.data.splits import assign_splits, tail_count
from preceptor.distillers import zoo as distillers
from preceptor.learning.arm import build_network, check_arms
from preceptor.pipeline import run
from preceptor.recipe import Recipe, read_recipe, shipped_recipes, validate_recipe
from preceptor.recipe_data import DataRecipe
from preceptor.segmentors import zoo as segmentors

from .published_folders import DATA_SETS

PUBLISHED = {
    "textfreekd/qata": ("qata", "textfreekd"),
    "textfreekd/mosmed": ("mosmed", "lvit"),
    "textfreekd/monuseg-published": ("monuseg", "lvit"),
    "languide/qata": ("qata", "lvit"),
    "languide/mosmed": ("mosmed", "textfreekd"),
    "languide/monuseg": ("monuseg", "textfreekd"),
}
"""Recipe to the data set and the layout that it is run on here."""

WIDTHS = "options.widths=[8, 8, 8, 16]"
DEPTHS = "options.depths=[1, 1, 1, 1]"
SMALL = [
    *(
        f"{part}.{change}"
        for part in ("teacher.segmentor", "student")
        for change in (WIDTHS, DEPTHS, "pretrained=null")
    ),
    "reports.encoder=hashed",
    "reports.revision=null",
    "reports.width=16",
    "data.image_size=32",
    "training.epochs=2",
    "training.batch_size=4",
    "teacher.training.epochs=2",
    "teacher.training.batch_size=4",
    "evaluate.bootstrap=100",
]
"""What makes a published recipe one of seconds: its size, its downloads, its epochs; nothing of its method."""


def steps(folder):
    with open(folder / "steps.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_reads_back_equal(name, tmp_path):
    recipe = read_recipe(name)
    assert recipe.description
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_names_networks_and_distillers_that_can_be_built(name):
    recipe = read_recipe(name)
    if recipe.teacher is not None and "diffusion" in recipe.teacher.segmentor.options:  # a file that the user brings
        recipe = read_recipe(name, ["teacher.segmentor.options.diffusion=null"])
    check_arms(recipe)


def test_names_of_recipes_are_distinct_since_they_name_run_folders():
    names = [read_recipe(name).name for name in shipped_recipes()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["textfreekd/qata", "textfreekd/mosmed", "textfreekd/monuseg-published"])
def test_textfreekd_holds_the_published_values(name):
    recipe = read_recipe(name)
    teacher, student = recipe.training_of("teacher"), recipe.training_of("student")
    for arm in (teacher, student):
        assert (arm.lr, arm.min_lr, arm.weight_decay, arm.schedule_epochs) == (3e-4, 1e-6, 0.01, 200)
        assert (arm.min_epochs, arm.patience, arm.monitor, arm.loss) == (20, 20, "dice_pooled", "dice_ce")
        assert (arm.accumulate, arm.warmup_epochs, arm.clip, arm.precision) == (1, 0.0, 0.0, "float32")
    assert (teacher.epochs, teacher.batch_size) == (100, 64)
    assert (student.epochs, student.batch_size) == (1000, 64 if name == "textfreekd/qata" else 32)
    assert [(part.name, part.weight) for part in recipe.distill] == [("token_l1", 0.5)]
    data = recipe.data
    assert (data.size, data.channels, data.mask_rule) == ((224, 224), 3, "eq255")
    assert (data.resize, data.antialias, data.normalize) == ("bicubic", False, "zscore")
    assert recipe.augment == type(recipe.augment)(zoom=[0.1, 0.95, 1.2])
    assert (recipe.reports.encoder, recipe.reports.length) == ("microsoft/BiomedVLP-CXR-BERT-specialized", 24)


@pytest.mark.parametrize("name", ["languide/qata", "languide/mosmed", "languide/monuseg"])
def test_languide_differs_from_textfreekd_as_published(name):
    recipe = read_recipe(name)
    assert recipe.distill == []
    assert recipe.teacher is not None
    assert recipe.training_of("teacher").loss == recipe.training.loss == "languide_dice"
    segmentor = {"name": "guided", "size": "tiny", "options": recipe.teacher.segmentor.options}
    condition = {"kind": "report", "length": 24, "width": 16}
    teacher = build_network({**segmentor, "in_channels": 3, "classes": 2, "condition": condition}, 0)
    scales = [value.item() for name, value in teacher.named_parameters() if name.endswith("scale")]
    assert scales == pytest.approx([1.421] * 3)
    report = torch.zeros(1, 24, 16)
    assert teacher.eval()(torch.zeros(1, 3, 32, 32), report).logits.shape[1] == 1


@pytest.mark.parametrize(
    ("rows", "validation", "train"),
    [(7145, 0.2, 5716), (7145, 0.12, 6287), (7145, 0.78, 1571), (30, 0.2, 24), (30, 0.12, 26), (30, 0.78, 6)],
)
def test_the_tail_rule_cuts_the_published_counts(rows, validation, train):
    assert tail_count(rows, validation) == train


@pytest.mark.parametrize("layout", ["textfreekd", "lvit"])
@pytest.mark.parametrize("name", DATA_SETS)
def test_both_layouts_of_a_data_set_give_every_case_its_mask_and_report(name, layout, tmp_path):
    found = read_cases(DataRecipe(root=str(DATA_SETS[name](tmp_path / name, layout))))
    assert (found.layout, found.findings) == (layout, ())
    assert all(case.mask is not None and case.report for case in found.cases)
    recipe = read_recipe("textfreekd/published")
    cases = assign_splits(found.cases, recipe.data.split)
    assert [case.split for case in cases if case.split != "test"] == ["train"] * 4 + ["val"] * 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_runs_from_files_to_judgement(name, tmp_path):
    data_set, layout = PUBLISHED[name]
    root = DATA_SETS[data_set](tmp_path / data_set, layout)
    recipe = read_recipe(name, [*SMALL, f"data.root={json.dumps(str(root))}"])
    outcome = run(recipe, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    arms = ["teacher", "control", "student"] if name.startswith("textfreekd") else ["teacher", "control"]
    assert list(summary["arms"]) == arms
    assert summary["arms"]["teacher"]["needs"] == "report"
    assert summary["arms"]["control"]["needs"] == "none"
    assert summary["cases"] == len([case for case in read_cases(recipe.data).cases if case.split == "test"])
    for arm in arms:
        trace = steps(tmp_path / "run" / arm / "seed-0")
        assert len(trace) == 2  # two epochs of four cases
        assert all(float(row["loss"]) < float("inf") for row in trace)
        assert 0 <= summary["arms"][arm]["dice_pooled"]["mean"] <= 1
    if "student" in arms:
        assert {"token_l1/guide32", "token_l1/guide16", "token_l1/guide8"} < set(trace[0])
    assert outcome.report is not None
    assert (tmp_path / "run" / "package" / "weights.safetensors").exists()


def test_the_release_is_repeated_with_its_splits_and_its_teacher_in_training_mode(tmp_path):
    """The two commands that `textfreekd/published` gives in its comment."""
    root = DATA_SETS["qata"](tmp_path / "qata", "textfreekd")
    small = [*SMALL, f"data.root={json.dumps(str(root))}"]
    first = read_recipe("textfreekd/qata", [*small, "data.split.validation=0.78"])
    run(first, tmp_path / "a", only=["teacher"])
    changes = ["data.split.validation=0.12", f"teacher.source={json.dumps(str(tmp_path / 'a'))}", "teacher.mode=train"]
    second = read_recipe("textfreekd/qata", [*small, *changes])
    run(second, tmp_path / "b", only=["teacher", "student"])
    splits = {place: (tmp_path / place / "cases.csv").read_text().count(",train,") for place in "ab"}
    assert splits == {"a": 1, "b": 5}
    frozen = run_distillation(second, tmp_path / "c", "eval")
    released = steps(tmp_path / "b" / "student" / "seed-0")
    assert released[0]["segmentation"] == frozen[0]["segmentation"]
    assert released[0]["token_l1/guide32"] == frozen[0]["token_l1/guide32"], "no batch norm lies before it"
    assert released[0]["token_l1/guide16"] != frozen[0]["token_l1/guide16"], "batch statistics make a difference"


def run_distillation(recipe: Recipe, folder, mode):
    content = recipe.plain()
    content["teacher"]["mode"] = mode
    run(validate_recipe(content), folder, only=["teacher", "student"])
    return steps(folder / "student" / "seed-0")


OFFICIAL = [
    {"name": "cwd", "options": {"on": "features", "temperature": 1.0, "official_reshape": True}},
    {"name": "cta", "options": {"official_temperature": True}},
    {"name": "token_skd", "options": {"temperature": 10.0}},
    {"name": "token_l2", "weight": 0.5},
    {"name": "kd", "options": {"temperature": 1.0}},
    {"name": "imd"},
]


@pytest.mark.parametrize("part", OFFICIAL, ids=lambda part: part["name"])
def test_what_the_release_has_switched_off_can_be_switched_on(part):
    content = read_recipe("textfreekd/published").plain()
    recipe = validate_recipe({**content, "distill": [part]})
    with torch.device("meta"):
        taps = segmentors.build("unguided", in_channels=3, classes=2, size="base").taps
        chosen = recipe.distill[0]
        distillers.build(chosen.name, student_taps=taps, teacher_taps=taps, **chosen.options)
