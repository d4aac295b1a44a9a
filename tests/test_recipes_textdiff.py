"""The recipes of TextDiff hold the published values, and run from a diffusion U-Net's file to a student without it."""

import json
from pathlib import Path

import pytest

from preceptor.compare import compare_matrix
from preceptor.data.readers import read_image
from preceptor.delivery.package import load_package
from preceptor.delivery.predict import segment
from preceptor.errors import StorageError
from preceptor.learning.arm import check_arms
from preceptor.matrix import cells, read_matrix
from preceptor.pipeline import run
from preceptor.recipe import read_recipe
from preceptor.recipe_diffusion import read_diffusion_recipe
from preceptor.segmentors.diffusion import DiffusionShape, diffusion_unet, write_diffusion
from preceptor.storage import hash_file

from .published_folders import DATA_SETS

SHAPE = DiffusionShape(32, widths=(8, 16, 16, 16), layers=1, attention=(3,), head_width=8, groups=4, learn_sigma=False)
OPTIONS = "teacher.segmentor.options"
SMALL = [
    "data.image_size=32",
    "reports.encoder=hashed",
    "reports.width=16",
    "teacher.segmentor.size=tiny",
    f"{OPTIONS}.blocks=null",
    f"{OPTIONS}.width=16",
    "student={name: plain_unet, size: tiny}",
    "distill=[{name: kd}, {name: fitnet, taps: {decoder1: decoder1}}]",
    "training.epochs=1",
    "training.min_epochs=1",
    "evaluate.bootstrap=100",
    "seeds=[0]",
]


@pytest.fixture
def diffusion(tmp_path: Path) -> Path:
    """The file of a small U-Net with random weights."""
    path = tmp_path / "diffusion.safetensors"
    write_diffusion(path, SHAPE, diffusion_unet(SHAPE).state_dict())
    return path


@pytest.mark.parametrize(("name", "blocks"), [("monuseg-published", "monuseg"), ("qata", "qata")])
def test_the_recipe_holds_the_published_values(name: str, blocks: str) -> None:
    recipe = read_recipe(f"textdiff/{name}")
    assert recipe.teacher is not None
    assert (recipe.teacher.privilege, recipe.teacher.segmentor.name) == ("report", "textdiff")
    assert recipe.teacher.segmentor.options["blocks"] == blocks
    data, training, augment = recipe.data, recipe.training_of("teacher"), recipe.augment
    assert (data.size, data.channels, data.normalize, recipe.reports.length) == ((256, 256), 3, "symmetric", 10)
    assert (training.optimizer, training.lr, training.weight_decay, training.schedule) == (
        "adam",
        1e-4,
        0.0,
        "constant",
    )
    assert (training.epochs, training.batch_size, training.loss, recipe.seeds) == (50, 1, "textdiff", [40])
    assert (augment.rot_flip, augment.rotate, augment.rotate_share) == (0.5, 20, 0.5)
    with pytest.raises(StorageError, match=r"weights are not there[\s\S]*pretrain-diffusion"):
        check_arms(recipe)


def test_a_published_recipe_runs_and_its_student_needs_neither_report_nor_diffusion(
    tmp_path: Path, diffusion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = DATA_SETS["monuseg"](tmp_path / "data", "lvit")
    places = [f"data.root={json.dumps(str(root))}", f"{OPTIONS}.diffusion={json.dumps(str(diffusion))}"]
    recipe = read_recipe("textdiff/monuseg-published", [*SMALL, *places])
    outcome = run(recipe, tmp_path / "run")
    assert outcome.summary is not None
    assert {arm: facts["needs"] for arm, facts in outcome.summary["arms"].items()} == {
        "teacher": "report",
        "control": "none",
        "student": "none",
    }
    teacher = load_package(tmp_path / "run" / "teacher" / "seed-0" / "package")
    assert teacher.segmentor["options"]["diffusion_hash"] == hash_file(diffusion)
    taken = [*SMALL, *places, f"teacher.source={json.dumps(str(tmp_path / 'run'))}"]
    run(read_recipe("textdiff/monuseg-published", taken), tmp_path / "taken", only=["teacher"])
    write_diffusion(diffusion, SHAPE, {name: tensor + 1 for name, tensor in diffusion_unet(SHAPE).state_dict().items()})
    with pytest.raises(StorageError, match="not the one that the classifier was trained on"):
        load_package(tmp_path / "run" / "teacher" / "seed-0" / "package")
    diffusion.unlink()
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    package = load_package(tmp_path / "run" / "package")
    picture = read_image(next((root / "Test_Folder" / "img").iterdir()))
    (found,) = segment(package.network, package.preprocessing, picture)
    assert found.shape == (2, *picture.geometry.shape)


def test_the_matrix_has_the_three_rows_of_the_ablation_and_both_extensions(tmp_path: Path) -> None:
    matrix = read_matrix("textdiff/monuseg")
    assert list(matrix.teachers) == ["no_text", "concat", "attention", "hierarchical", "contrastive"]
    made = {cell.name for cell in cells(matrix, tmp_path)}
    assert {f"teacher-{name}" for name in matrix.teachers} < made
    assert {"control-unet", "unet--attention--kd"} < made
    assert read_diffusion_recipe("textdiff/monuseg").shape == "tiny"


@pytest.mark.slow
def test_the_whole_matrix_runs_on_a_small_folder(tmp_path: Path, diffusion: Path) -> None:
    root = DATA_SETS["monuseg"](tmp_path / "data", "lvit")
    small = [
        f"recipe.data.root={json.dumps(str(root))}",
        *(f"recipe.{change}" for change in SMALL[:3]),
        "recipe.training.epochs=1",
        "recipe.training.min_epochs=1",
        "recipe.evaluate.bootstrap=100",
        "seeds=[0]",
    ]
    for name in read_matrix("textdiff/monuseg").teachers:
        options = f"teachers.{name}.segmentor.options"
        small += [f"{options}.diffusion={json.dumps(str(diffusion))}", f"{options}.width=16", f"{options}.blocks=null"]
    outcome = compare_matrix(read_matrix("textdiff/monuseg", small), tmp_path / "out")
    assert not outcome.unfinished
    assert len(outcome.result["entries"]) == 7
