"""A matrix: teachers x students x distillers x seeds as one file, and the runs that it stands for.

Every teacher and every control is trained once, in a run of its own, and shared: a run of a student takes them as they
are. So a run is all that there is; a matrix only names many.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from preceptor.errors import RecipeError
from preceptor.recipe import (
    DistillRecipe,
    Recipe,
    SegmentorRecipe,
    TeacherRecipe,
    TrainingRecipe,
    apply_changes,
    inherited,
    read_yaml,
    shipped,
    validate_recipe,
)
from preceptor.recipe_data import Part
from preceptor.recipe_faults import FieldsOf, explain

SUFFIX = ".matrix.yaml"
"""How the names of shipped matrices end, so that they are not taken for recipes."""


class StudentRecipe(SegmentorRecipe):
    """A student network. training: fields that differ from the shared `training`, for it and its control."""

    training: Annotated[dict[str, Any], FieldsOf(TrainingRecipe)] = Field(default={})

    @field_validator("training")
    @classmethod
    def _training_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        TrainingRecipe.model_validate(value)
        return value


class Matrix(Part):
    """What is compared. recipe: what all runs share, as a recipe without teacher, student and distillers; it may
    `extends` another. distillers: each a list of distillers that are used together. only: runs to make, as
    `student--teacher--distiller` with * for any, or a teacher or control by itself as `teacher-NAME` or `control-NAME`;
    all where empty. teacher_seeds: seeds of the teachers, those of the
    students where left out; a student of a seed that its teacher lacks learns from the teacher's first.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w .+-]*$")]
    description: str = ""
    recipe: dict[str, Any]
    teachers: dict[str, TeacherRecipe] = Field(min_length=1)
    students: dict[str, StudentRecipe] = Field(min_length=1)
    distillers: dict[str, list[DistillRecipe]] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    teacher_seeds: list[int] | None = Field(default=None, min_length=1)
    only: list[str] = Field(default=[])

    @field_validator("distillers", mode="before")
    @classmethod
    def _single_distillers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: [part] if isinstance(part, dict) else part for name, part in value.items()}

    @field_validator("teachers", "students", "distillers")
    @classmethod
    def _names_of_folders(cls, value: dict[str, Any]) -> dict[str, Any]:
        bad = [name for name in value if not re.fullmatch(r"[A-Za-z0-9_]+", name)]
        if bad:
            raise ValueError(f"a name becomes part of a folder's: letters, digits and _ only; found {', '.join(bad)}")
        return value

    @field_validator("recipe")
    @classmethod
    def _shared_parts(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = {"teacher", "teachers", "student", "distill", "control", "seeds", "name"} & set(value)
        if own:
            raise ValueError(
                f"recipe: {', '.join(sorted(own))} belong to the matrix itself, not to what all runs share"
            )
        return value


@dataclass(frozen=True)
class Cell:
    """One run of a matrix. role: what it adds to the comparison. stages: as `pipeline.run`. needs: cells before it."""

    name: str
    role: str
    recipe: Recipe
    stages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    student: str = ""
    teacher: str = ""
    distiller: str = ""


def shipped_matrices() -> dict[str, Path]:
    """Name (`zoo/acdc`) to file of every matrix that comes with the library."""
    return shipped(SUFFIX)


def read_matrix(source: str | Path, changes: Iterable[str] = ()) -> Matrix:
    """A matrix by file or shipped name; changes: `a.b=value`, on the matrix (`recipe.training.epochs=3`).

    Raises RecipeError with every fault at once.
    """
    found = shipped_matrices()
    path = Path(source) if Path(source).is_file() else found.get(str(source))
    if path is None:
        raise RecipeError(
            "there is no such matrix file and no shipped matrix of that name",
            where=source,
            expected=", ".join(found) or None,
            remedy="`preceptor list matrices` names the shipped ones; a file has the keys name, recipe, teachers, "
            "students, distillers and seeds",
        )
    content = apply_changes(read_yaml(path), changes)
    shared = content.get("recipe")
    if isinstance(shared, dict):
        content["recipe"] = inherited(shared, path)
        for own in ("teacher", "teachers", "student", "distill", "control", "seeds", "name", "description"):
            if own not in shared:
                content["recipe"].pop(own, None)
    try:
        return Matrix.model_validate(content)
    except ValidationError as error:
        raise RecipeError("the matrix is not valid", where=source, offenders=explain(error, Matrix)) from error


def cells(matrix: Matrix, folder: Path) -> list[Cell]:
    """The runs of a matrix below `folder`, teachers and controls first.

    Raises RecipeError for what no recipe may hold, and for an `only` that fits no run.
    """
    chosen = _chosen(matrix)
    first = next(iter(matrix.students))
    found: list[Cell] = []
    content: dict[str, Any]
    teachers = [name for name in matrix.teachers if f"teacher-{name}" in matrix.only]
    controls = [name for name in matrix.students if f"control-{name}" in matrix.only]
    for name in dict.fromkeys([*(teacher for _, teacher, _ in chosen), *teachers]):
        content = {**_student(matrix, first), "teacher": _teacher(matrix, name, first)}
        recipe = _recipe(matrix, f"teacher-{name}", content, matrix.teacher_seeds)
        found.append(Cell(f"teacher-{name}", "teacher", recipe, ("teacher", "evaluate"), teacher=name))
    for name in dict.fromkeys([*(student for student, _, _ in chosen), *controls]):
        recipe = _recipe(matrix, f"control-{name}", _student(matrix, name))
        found.append(Cell(f"control-{name}", "control", recipe, student=name))
    for student, teacher, distiller in chosen:
        name = f"{student}--{teacher}--{distiller}"
        needs = f"teacher-{teacher}", f"control-{student}"
        content = {
            **_student(matrix, student),
            "teacher": {**_teacher(matrix, teacher, student), "source": str(folder / needs[0])},
            "control": {"source": str(folder / needs[1])},
            "distill": [_plain(part) for part in matrix.distillers[distiller]],
        }
        recipe = _recipe(matrix, name, content)
        found.append(Cell(name, "student", recipe, (), needs, student, teacher, distiller))
    return found


def _student(matrix: Matrix, name: str) -> dict[str, Any]:
    """The sections `student` and `training` of a recipe, the latter with what the student changes of the shared one."""
    content = _plain(matrix.students[name])
    changes, shared = content.pop("training"), matrix.recipe.get("training", {})
    return {"student": content, "training": {**shared, **changes} if isinstance(shared, dict) else shared}


def _teacher(matrix: Matrix, name: str, student: str) -> dict[str, Any]:
    """The section `teacher` beside a student; it trains as the shared section says, whatever the student changes."""
    content = _plain(matrix.teachers[name])
    changed = matrix.students[student].training
    if changed:
        shared = _recipe(matrix, f"teacher-{name}", {"student": content["segmentor"]}).training.model_dump(mode="json")
        content["training"] = {**{key: shared[key] for key in changed}, **content["training"]}
    return content


def _recipe(matrix: Matrix, name: str, content: dict[str, Any], seeds: list[int] | None = None) -> Recipe:
    shared = {**matrix.recipe, **content, "name": name, "seeds": seeds or matrix.seeds}
    return validate_recipe(shared, where=f"{matrix.name}: {name}")


def _plain(part: Part) -> dict[str, Any]:
    return part.model_dump(mode="json")


def _chosen(matrix: Matrix) -> list[tuple[str, str, str]]:
    """(student, teacher, distiller) of every run that `only` leaves."""
    every = list(itertools.product(matrix.students, matrix.teachers, matrix.distillers))
    alone = {f"teacher-{name}" for name in matrix.teachers} | {f"control-{name}" for name in matrix.students}
    idle = [
        pattern for pattern in matrix.only if pattern not in alone and not any(_fits(pattern, names) for names in every)
    ]
    if idle:
        raise RecipeError(
            "no run of the matrix is called so",
            where="only",
            offenders=idle,
            expected="student--teacher--distiller, with * for any, teacher-NAME or control-NAME",
            remedy="the names are the keys of students, teachers and distillers: "
            + "; ".join(", ".join(part) for part in (matrix.students, matrix.teachers, matrix.distillers)),
        )
    return [names for names in every if not matrix.only or any(_fits(pattern, names) for pattern in matrix.only)]


def _fits(pattern: str, names: tuple[str, str, str]) -> bool:
    wanted = pattern.split("--")
    return len(wanted) == len(names) and all(part in ("*", name) for part, name in zip(wanted, names, strict=True))
