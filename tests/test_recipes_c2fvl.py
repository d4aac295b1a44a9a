"""The recipes of C2FVL hold the published values and run, on folders of the published layouts and on phantoms."""

import csv
import json
from pathlib import Path

import pytest

from preceptor.errors import UserError
from preceptor.learning.arm import check_arms
from preceptor.learning.optimization import learning_rate
from preceptor.pipeline import run
from preceptor.recipe import read_recipe
from preceptor.text.attributes import ATTRIBUTES

from .published_folders import DATA_SETS

PUBLISHED = ["c2fvl/published", "c2fvl/qata", "c2fvl/mosmed"]
SMALL = [
    *(f"{part}.options.width=8" for part in ("teacher.segmentor", "student")),
    "data.image_size=32",
    "training.epochs=2",
    "evaluate.bootstrap=100",
]
"""What makes a recipe one of seconds: its size and its epochs; nothing of its method."""
LAYOUTS = {"c2fvl/qata": ("qata", "lvit"), "c2fvl/mosmed": ("mosmed", "textfreekd")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_hold_the_published_values(name: str) -> None:
    recipe = read_recipe(name, ["data.labels={background: 0, infection: 255}"])
    check_arms(recipe)
    assert recipe.teacher is not None
    assert (recipe.teacher.segmentor.name, recipe.teacher.segmentor.options) == ("c2fvl", {"gate": "raw"})
    assert (recipe.teacher.privilege, recipe.student.name) == ("attributes", "c2fvl_free")
    for arm in recipe.arms:
        settings = recipe.training_of(arm)
        assert (settings.optimizer, settings.lr, settings.weight_decay, settings.clip) == ("adam", 1e-3, 0.0, 0.0)
        assert (settings.schedule, settings.restart_epochs, settings.min_lr) == ("restarts", 10, 1e-4)
        assert (settings.loss, settings.loss_weights, settings.own_loss_weight) == ("c2fvl", [1.0], 1.0)
        assert (settings.epochs, settings.patience, settings.batch_size) == (2000, 50, 4)
        assert settings.monitor == "dice_image_mean"
    data, augment = recipe.data, recipe.augment
    assert (data.size, data.normalize, data.resize, data.antialias) == ((224, 224), "unit", "bilinear", False)
    assert (augment.rot_flip, augment.rotate, augment.rotate_share, augment.zoom) == (0.5, 20.0, 0.5, [0, 1, 1])
    assert recipe.seeds == [666]


def test_the_schedule_is_the_published_one() -> None:
    """c2fvl.md, section 12, point 6."""
    settings = read_recipe("c2fvl/published").training
    rates = [learning_rate(settings, epoch, 0.7) for epoch in range(11)]
    published = [1e-3, 9.78e-4, 9.141e-4, 8.145e-4, 6.891e-4, 5.5e-4, 4.109e-4, 2.855e-4, 1.859e-4, 1.22e-4, 1e-3]
    assert rates == pytest.approx(published, abs=5e-8)
    assert learning_rate(settings, 1234, 0.0) == rates[4]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_recipe_runs_from_files_to_judgement(name: str, tmp_path: Path) -> None:
    data_set, layout = LAYOUTS[name]
    root = DATA_SETS[data_set](tmp_path / data_set, layout)
    outcome = run(read_recipe(name, [*SMALL, f"data.root={json.dumps(str(root))}"]), tmp_path / "run")
    assert outcome.summary is not None
    assert {arm: facts["needs"] for arm, facts in outcome.summary["arms"].items()} == {
        "teacher": "attributes",
        "control": "none",
        "student": "none",
    }
    assert set(outcome.summary["probes"]) >= {"right", "unknown", "shuffled", "wrong_side"}
    assert "attributes" in outcome.summary["probes"]["message"]
    found = json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf-8"))["facts"]["attributes"]
    assert found["complete"] == found["of"]
    assert outcome.report is not None
    page = outcome.report.read_text(encoding="utf-8")
    assert "image and coded attributes" in page
    assert "nothing known" in page
    with open(tmp_path / "run" / "student" / "seed-666" / "steps.csv", encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    assert {"kd", "fitnet/decoder1", "fitnet/decoder4", "alignment"} < set(steps[0])
    assert all(float(row["loss"]) < float("inf") for row in steps)
    assert not (tmp_path / "run" / "reports.safetensors").exists(), "no encoder takes part"


def test_attributes_of_the_published_tables_need_no_sentence(tmp_path: Path) -> None:
    """Tables as C2FVL names them, in the place of LViT's: the column of sentences is not there."""
    from openpyxl import Workbook

    root = DATA_SETS["mosmed"](tmp_path / "data", "lvit")
    tables = []
    for number, split in enumerate(("Train", "Val", "Test")):
        book = Workbook()
        book.active.append(["Image", *ATTRIBUTES])
        for file in sorted((root / f"{split}_Folder" / "labelcol").iterdir()):
            book.active.append([file.name, 0, 1 + number, 1, 0, 0, 0, 0, 0])
        for old in (root / f"{split}_Folder").glob("*.xlsx"):
            old.unlink()
        book.save(root / f"{split}_Folder" / f"{split}_text.xlsx")
        tables.append(f"{split}_Folder/{split}_text.xlsx")
    changes = [*SMALL, f"data.root={json.dumps(str(root))}", f"reports.attributes={json.dumps(tables)}"]
    outcome = run(read_recipe("c2fvl/mosmed", [*changes, "training.epochs=1"]), tmp_path / "run", only=["teacher"])
    facts = json.loads((outcome.folder / "data.json").read_text(encoding="utf-8"))
    assert facts["facts"]["attributes"]["complete"] == facts["facts"]["attributes"]["of"]
    assert (outcome.folder / "teacher" / "seed-666" / "package").exists()


def test_reports_that_say_no_attribute_stop_the_run_before_any_training(tmp_path: Path) -> None:
    root = DATA_SETS["monuseg"](tmp_path / "data", "lvit")
    with pytest.raises(UserError, match=r"no attribute of any case is known[\s\S]*reports\.coding: notes"):
        run(read_recipe("c2fvl/qata", [*SMALL, f"data.root={json.dumps(str(root))}"]), tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()


def test_phantoms_run_with_their_sentences(tmp_path: Path) -> None:
    changes = [*SMALL, "data.phantoms.cases=18", "data.phantoms.size=48", "seeds=[0]", "training.epochs=1"]
    root = json.dumps(str(tmp_path / "phantoms"))
    outcome = run(read_recipe("c2fvl/phantoms", [*changes, f"data.root={root}"]), tmp_path / "run")
    assert outcome.summary is not None
    assert outcome.summary["probes"]["right"]["n"] == outcome.summary["cases"]
