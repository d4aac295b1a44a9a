"""What a run folder refuses, so that student and control differ in nothing but the teacher."""

from pathlib import Path

import pytest

from preceptor.errors import RecipeError, StorageError
from preceptor.recipe import validate_recipe
from preceptor.resuming import CHANGEABLE, is_among, require_same_encoder, require_same_recipe, require_same_teachers


def test_the_number_of_devices_stays_and_more_workers_may_come(small_recipe: dict, tmp_path: Path) -> None:
    (tmp_path / "control" / "seed-0").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text(validate_recipe(small_recipe).to_yaml(), encoding="utf-8")
    require_same_recipe(tmp_path, validate_recipe(small_recipe, changes=["training.workers=1", "seeds=[0, 1]"]))
    for change in ("training.devices=2", "training.nodes=2"):
        with pytest.raises(RecipeError, match="another recipe"):
            require_same_recipe(tmp_path, validate_recipe(small_recipe, changes=["training.workers=1", change]))


def test_one_of_several_teachers_may_train_longer_or_come_from_elsewhere(small_recipe: dict, tmp_path: Path) -> None:
    teacher = small_recipe.pop("teacher")
    small_recipe |= {"teachers": {"a": teacher, "b": teacher}, "distill": [{"name": "kd", "teacher": "a"}]}
    (tmp_path / "control" / "seed-0").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text(validate_recipe(small_recipe).to_yaml(), encoding="utf-8")
    changes = ["teachers.a.training.epochs=9", "teachers.b.source=runs/other"]
    require_same_recipe(tmp_path, validate_recipe(small_recipe, changes=changes))
    with pytest.raises(RecipeError, match=r"teachers\.b\.training\.lr"):
        require_same_recipe(tmp_path, validate_recipe(small_recipe, changes=["teachers.b.training.lr=0.5"]))


def test_a_key_that_only_begins_like_a_changeable_one_may_not_change() -> None:
    may = ("seeds: [0] -> [1]", "evaluate.tolerance: 2.0 -> 3.0", "teachers.x.source: None -> a: b")
    may_not = (
        "seeds_of_teachers: 0 -> 1",
        "teacher.source_mode: a -> b",
        "teachers.source: a -> b",
        "evaluated: 0 -> 1",
    )
    assert [is_among(line, CHANGEABLE) for line in (*may, *may_not)] == [True] * 3 + [False] * 4


def test_before_any_arm_has_begun_another_recipe_checks_the_data_anew(small_recipe: dict, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(validate_recipe(small_recipe).to_yaml(), encoding="utf-8")
    (tmp_path / "elsewhere" / "clinic").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "elsewhere" / "clinic"):  # other data are compared with the training cases
        (place / "data.json").write_text("{}", encoding="utf-8")
    require_same_recipe(tmp_path, validate_recipe(small_recipe, changes=["training.devices=2"]))
    assert not list(tmp_path.rglob("data.json"))


def test_a_student_keeps_its_teacher(tmp_path: Path) -> None:
    require_same_teachers(tmp_path, {"teacher": "a" * 64})
    require_same_teachers(tmp_path, {"teacher": "a" * 64})
    with pytest.raises(StorageError, match="learned from another teacher"):
        require_same_teachers(tmp_path, {"teacher": "b" * 64})


def test_features_of_another_encoder_are_refused_where_the_encoder_is_known() -> None:
    require_same_encoder("hashed/1/length-24/width-128", "hashed/1/length-24/width-128", "reports.safetensors")
    require_same_encoder(None, "hashed/1/length-24/width-128", "reports.safetensors")
    require_same_encoder("hashed/1/length-24/width-128", None, None)
    with pytest.raises(RecipeError, match="another encoder than this run began with"):
        require_same_encoder("hashed/1/length-24/width-128", "bert", "reports.safetensors")
