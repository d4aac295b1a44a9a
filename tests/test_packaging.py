"""Packages from other runs are taken only where they are what the recipe says, and whole."""

from pathlib import Path

import pytest

from preceptor import packaging
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import save_package
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.learning.arm import build_network, segmentor_of
from preceptor.packaging import take_control, take_teacher, weights_hash
from preceptor.recipe import Recipe, validate_recipe
from preceptor.storage import read_json, write_json


@pytest.fixture
def recipe(small_recipe: dict) -> Recipe:
    """Teacher and student are the same small network, without reports."""
    teacher = {"segmentor": {"name": "unguided", "size": "tiny"}}
    return validate_recipe({**small_recipe, "student": {"name": "unguided", "size": "tiny"}, "teacher": teacher})


def package(place: Path, recipe: Recipe, arm: str = "teacher", weights: int = 0) -> Path:
    """What the training of an arm leaves; `weights` is the seed of the weights."""
    segmentor = segmentor_of(recipe, arm, None)
    network = build_network(segmentor, weights)
    segmentor.pop("pretrained")
    save_package(
        place / "package",
        network,
        segmentor=segmentor,
        preprocessing=Preprocessing.from_recipe(recipe.data),
        labels=recipe.data.labels,
        card={"recipe": recipe.plain(), "validation": 0.5},
    )
    write_json(place / "done.json", {"best": 0.5, "epochs": 2})
    return place / "package"


def take(source: Path, target: Path, recipe: Recipe, arm: str = "teacher", seed: int = 0) -> str:
    """The hash of the weights that are taken."""
    take_teacher(source, target, recipe, arm, seed, None)
    return weights_hash(target / "package")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("teacher.segmentor.name=plain_unet", "segmentor.name: unguided -> plain_unet"),
        ("teacher.segmentor.size=small", "segmentor.size: tiny -> small"),
        ("teacher.segmentor.options.head_width=16", "segmentor.options.head_width: 24 -> 16"),
    ],
)
def test_a_teacher_of_another_network_is_refused(recipe: Recipe, tmp_path: Path, change: str, told: str) -> None:
    found = package(tmp_path / "a", recipe)
    with pytest.raises(RecipeError, match="another network") as error:
        take(found, tmp_path / "b", validate_recipe(recipe.plain(), changes=[change]))
    assert told in str(error.value)
    assert not (tmp_path / "b").exists()


def test_an_option_that_is_left_out_is_its_default(recipe: Recipe, tmp_path: Path) -> None:
    found = package(tmp_path / "a", recipe)
    assert take(
        found, tmp_path / "b", validate_recipe(recipe.plain(), changes=["teacher.segmentor.options.head_width=24"])
    )


def test_the_teacher_of_the_seed_is_taken_else_that_of_the_lowest(recipe: Recipe, tmp_path: Path) -> None:
    made = {n: weights_hash(package(tmp_path / "a" / "teacher" / f"seed-{n}", recipe, weights=n)) for n in (10, 2)}
    assert take(tmp_path / "a", tmp_path / "b", recipe, seed=10) == made[10]
    assert take(tmp_path / "a", tmp_path / "c", recipe, seed=3) == made[2]
    assert take(tmp_path / "a", tmp_path / "d", recipe, seed=0) == made[2]


def test_of_several_teachers_the_one_of_that_name_is_taken(small_recipe: dict, recipe: Recipe, tmp_path: Path) -> None:
    names = ("x", "y")
    made = {n: weights_hash(package(tmp_path / "a" / f"teacher-{n}" / "seed-5", recipe, weights=ord(n))) for n in names}
    with pytest.raises(RecipeError, match="several teachers") as error:
        take(tmp_path / "a", tmp_path / "b", recipe)
    assert "teacher-x" in str(error.value)
    assert "teacher-y" in str(error.value)
    plain = {**recipe.plain(), "teacher": None, "teachers": dict.fromkeys(names, recipe.plain()["teacher"])}
    plain["distill"] = [{"name": "kd", "teacher": "x"}]
    assert take(tmp_path / "a", tmp_path / "c", validate_recipe(plain), "teacher-y") == made["y"]


CASES = {"c0": "a1", "c1": "b2"}


@pytest.fixture
def source(recipe: Recipe, tmp_path: Path) -> Path:
    """A run of a control on CASES."""
    package(tmp_path / "a" / "control" / "seed-0", recipe, "control")
    write_json(tmp_path / "a" / "data.json", {"fingerprints": CASES})
    return tmp_path / "a"


def test_a_control_of_other_epochs_is_refused(recipe: Recipe, source: Path, tmp_path: Path) -> None:
    longer = validate_recipe(recipe.plain(), changes=["training.epochs=100"])
    with pytest.raises(RecipeError, match=r"training\.epochs: 2 -> 100"):
        take_control(source, tmp_path / "b", longer, 0, CASES)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("cases", [{**CASES, "c1": "b3"}, {"c0": "a1"}, {**CASES, "c2": "c3"}])
def test_a_control_of_other_cases_is_refused(recipe: Recipe, source: Path, tmp_path: Path, cases: dict) -> None:
    with pytest.raises(DataError, match="other cases"):
        take_control(source, tmp_path / "b", recipe, 0, cases)
    assert not (tmp_path / "b").exists()


def test_a_control_of_unknown_cases_is_refused(recipe: Recipe, source: Path, tmp_path: Path) -> None:
    (source / "data.json").unlink()
    with pytest.raises(DataError, match="other cases"):
        take_control(source, tmp_path / "b", recipe, 0, CASES)


def test_a_control_of_a_machine_with_other_folders_and_workers_is_taken(recipe, source: Path, tmp_path: Path) -> None:
    changes = ["data.root=elsewhere", "data.licence=CC0", "training.workers=2", "seeds=[0, 1]"]
    take_control(source, tmp_path / "b", validate_recipe(recipe.plain(), changes=changes), 0, CASES)
    assert (tmp_path / "b" / "done.json").is_file()


def test_a_copy_that_was_cut_short_is_made_whole(recipe: Recipe, tmp_path: Path, monkeypatch) -> None:
    """Killed as soon as the package stands; the target held another teacher before."""
    old, new = package(tmp_path / "old", recipe), package(tmp_path / "new", recipe, weights=1)
    write_json(tmp_path / "new" / "done.json", {"best": 0.9})
    take(old, tmp_path / "b", recipe)
    copy = packaging._replace_folder

    def copy_and_die(source: Path, target: Path) -> None:
        copy(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(packaging, "_replace_folder", copy_and_die)
    with pytest.raises(KeyboardInterrupt):
        take(new, tmp_path / "b", recipe)
    monkeypatch.undo()
    take(new, tmp_path / "b", recipe)
    assert read_json(tmp_path / "b" / "done.json")["best"] == 0.9
    (tmp_path / "b" / "done.json").unlink()
    take(new, tmp_path / "b", recipe)
    assert read_json(tmp_path / "b" / "done.json")["best"] == 0.9


def test_what_holds_no_teacher_is_told(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="neither a run with a trained teacher nor a package"):
        take(tmp_path, tmp_path / "b", recipe)
