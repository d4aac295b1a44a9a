"""Matrices: every run once, teachers and controls shared, faults told all at once."""

from pathlib import Path
from typing import Any

import pytest

from preceptor import plainyaml
from preceptor.errors import RecipeError
from preceptor.matrix import Matrix, cells, read_matrix, shipped_matrices

CONTENT: dict[str, Any] = {
    "name": "small",
    "recipe": {"data": {"root": "films", "labels": {"background": 0, "square": 255}}, "training": {"epochs": 7}},
    "teachers": {
        "reads": {"segmentor": {"name": "guided", "size": "tiny"}, "privilege": "report"},
        "large": {"segmentor": {"name": "unguided", "size": "small"}, "training": {"epochs": 9}},
    },
    "students": {"a": {"name": "unguided", "size": "tiny"}, "b": {"name": "fcn_r18", "size": "tiny"}},
    "distillers": {"kd": {"name": "kd", "weight": 2.0}, "two": [{"name": "kd"}, {"name": "cwd", "weight": 3.0}]},
    "seeds": [0, 3],
}
HERE = Path("/comparison/runs")


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "my.matrix.yaml"
    path.write_text(plainyaml.render({**CONTENT, **changes}), encoding="utf-8")
    return path


def planned(**changes: Any) -> dict[str, Any]:
    return {cell.name: cell for cell in cells(Matrix.model_validate({**CONTENT, **changes}), HERE)}


def test_every_combination_is_one_run_after_its_teacher_and_its_control() -> None:
    found = planned()
    names = list(found)
    assert len(names) == 2 + 2 + 2 * 2 * 2
    assert names[:4] == ["teacher-reads", "teacher-large", "control-a", "control-b"]
    cell = found["b--large--two"]
    assert cell.needs == ("teacher-large", "control-b")
    assert (cell.student, cell.teacher, cell.distiller) == ("b", "large", "two")
    assert all(names.index(need) < names.index(name) for name, cell in found.items() for need in cell.needs)


def test_a_student_takes_its_teacher_and_control_and_trains_neither() -> None:
    recipe = planned()["a--reads--two"].recipe
    assert recipe.teacher is not None
    assert recipe.teacher.source == str(HERE / "teacher-reads")
    assert recipe.control.source == str(HERE / "control-a")
    assert [(part.name, part.weight) for part in recipe.distill] == [("kd", 1.0), ("cwd", 3.0)]
    assert (recipe.student.name, recipe.training.epochs, recipe.seeds) == ("unguided", 7, [0, 3])


def test_a_teacher_is_trained_and_judged_alone_and_a_control_without_teacher() -> None:
    found = planned()
    assert found["teacher-large"].stages == ("teacher", "evaluate")
    assert found["teacher-large"].recipe.training_of("teacher").epochs == 9
    assert found["control-b"].recipe.arms == ("control",)
    assert found["control-b"].recipe.student.name == "fcn_r18"


def test_teachers_may_have_fewer_seeds_than_their_students() -> None:
    found = planned(teacher_seeds=[0])
    assert found["teacher-reads"].recipe.seeds == [0]
    assert found["control-a"].recipe.seeds == found["a--reads--kd"].recipe.seeds == [0, 3]


def test_a_student_may_train_otherwise_with_its_control_and_its_teacher_as_all() -> None:
    """As a student with side heads must beside one without."""
    from preceptor.learning.arm import check_arms

    heads = {"name": "unet_r18", "size": "tiny", "options": {"auxiliary": True}}
    own = {**heads, "training": {"loss_weights": [1.0, 0.5], "lr": 0.01}}
    for students in ({"a": CONTENT["students"]["a"], "b": own}, {"b": own, "a": CONTENT["students"]["a"]}):
        found = planned(students=students)
        for name in ("control-b", "b--large--kd"):
            recipe = found[name].recipe
            settings = recipe.training_of(recipe.arms[-1])
            assert (settings.loss_weights, settings.lr, settings.epochs) == ([1.0, 0.5], 0.01, 7)
        for name in ("teacher-large", "a--large--kd", "b--large--kd"):
            settings = found[name].recipe.training_of("teacher")
            assert (settings.loss_weights, settings.lr, settings.epochs) == ([1.0], 3e-4, 9)
        assert found["control-a"].recipe.training_of("control").loss_weights == [1.0]
        for cell in found.values():
            check_arms(cell.recipe)


def test_only_leaves_the_named_runs_and_what_they_need() -> None:
    found = planned(only=["a--*--kd", "b--large--two"])
    students = [name for name, cell in found.items() if cell.role == "student"]
    assert students == ["a--reads--kd", "a--large--kd", "b--large--two"]
    found = planned(only=["a--large--*"])
    assert set(found) == {"teacher-large", "control-a", "a--large--kd", "a--large--two"}
    found = planned(only=["a--large--kd", "teacher-reads", "control-b"])
    assert list(found) == ["teacher-large", "teacher-reads", "control-a", "control-b", "a--large--kd"]


@pytest.mark.parametrize("pattern", ["a--large", "c--*--kd", "a--large--kd--x"])
def test_an_only_that_fits_no_run_is_refused_with_the_names(pattern: str) -> None:
    with pytest.raises(
        RecipeError, match=r"(?s)no run of the matrix is called so.*a, b; reads, large; kd, two"
    ) as told:
        planned(only=["a--large--kd", pattern])
    assert told.value.offenders == (pattern,)


def test_a_matrix_reads_from_a_file_with_changes(tmp_path: Path) -> None:
    matrix = read_matrix(written(tmp_path), ["recipe.training.epochs=3", "seeds=[1]", "students.a.size=small"])
    assert matrix.recipe["training"]["epochs"] == 3
    assert matrix.seeds == [1]
    assert matrix.students["a"].size == "small"


def test_the_shared_recipe_may_extend_another_without_its_arms(tmp_path: Path) -> None:
    shared = {"extends": "demo", "training": {"epochs": 2}}
    matrix = read_matrix(written(tmp_path, recipe=shared))
    assert matrix.recipe["training"] == {**matrix.recipe["training"], "epochs": 2, "batch_size": 16}
    assert matrix.recipe["data"]["image_size"] == 128
    assert not {"teacher", "student", "distill", "name", "seeds"} & set(matrix.recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"studnets": {}}, "studnets: unknown key; did you mean students?"),
        ({"students": {}}, "students: Dictionary should have at least 1 item"),
        (
            {"students": {"a b": {"name": "unguided"}}},
            "students: a name becomes part of a folder's: letters, digits and _ only; found a b",
        ),
        ({"students": {"a": {"nam": "unguided"}}}, "students.a.nam: unknown key; did you mean name?"),
        (
            {"students": {"a": {"name": "unguided", "training": {"epoch": 3}}}},
            "students.a.training.epoch: unknown key; did you mean epochs?",
        ),
        ({"distillers": {"kd": {"weight": 1}}}, "distillers.kd.0.name: required, but missing"),
        ({"recipe": {"student": {"name": "unguided"}}}, "recipe: student belong to the matrix itself"),
        ({"seeds": []}, "seeds: List should have at least 1 item"),
        ({"teacher_seeds": []}, "teacher_seeds: List should have at least 1 item"),
        ({"name": "a/b"}, "name: String should match pattern"),
    ],
)
def test_a_fault_of_a_matrix_is_told_with_its_key(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the matrix is not valid") as told:
        read_matrix(written(tmp_path, **changes))
    assert any(message in line for line in told.value.offenders), told.value.offenders


def test_a_fault_of_what_all_runs_share_names_the_run_that_shows_it() -> None:
    with pytest.raises(RecipeError, match=r"small: teacher-reads: the recipe is not valid") as told:
        planned(recipe={"trainig": {}})
    assert told.value.offenders == ("trainig: unknown key; did you mean training?",)
    with pytest.raises(RecipeError, match="seeds: each seed once"):
        planned(seeds=[0, 0])


def test_an_absent_matrix_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="no such matrix file") as told:
        read_matrix("absent")
    assert all(name in str(told.value) for name in shipped_matrices())


@pytest.mark.parametrize("name", shipped_matrices())
def test_a_shipped_matrix_has_a_description_and_valid_runs(name: str) -> None:
    from preceptor.learning.arm import check_arms

    matrix = read_matrix(name)
    assert matrix.description
    brought = [name for name, teacher in matrix.teachers.items() if "diffusion" in teacher.segmentor.options]
    matrix = read_matrix(name, [f"teachers.{teacher}.segmentor.options.diffusion=null" for teacher in brought])
    for cell in cells(matrix, HERE):
        check_arms(cell.recipe)
