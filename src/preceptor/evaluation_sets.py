"""The sets of cases on which the arms of a run are judged: the recipe's own, and other data sets (`elsewhere`).

Other data are read and checked before any training. They are judged as they are: nothing is trained on, chosen by or
adapted to them, and a picture that a network has learned from is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from preceptor.data.case import Case, CaseSet, write_manifest
from preceptor.data.check import CheckReport, check
from preceptor.data.check_files import content_hash
from preceptor.data.check_findings import render_findings
from preceptor.data.layouts import read_cases
from preceptor.data.readers import read_image
from preceptor.data.shelf import require_volume
from preceptor.data.splits import assign_splits, usable
from preceptor.data.transforms import Preprocessing
from preceptor.errors import DataError, RecipeError, UserError
from preceptor.evaluation.units import distances_in, scored, units
from preceptor.learning.privilege import PRIVILEGES, needs_reports
from preceptor.progress import Progress, callback
from preceptor.recipe import Recipe
from preceptor.recipe_data import DataRecipe, FilesRecipe
from preceptor.recipe_evaluate import EvaluateRecipe, OtherDataRecipe
from preceptor.resuming import fingerprints
from preceptor.storage import read_json, write_json


@dataclass(frozen=True)
class EvaluationSet:
    """Cases on which arms are judged, and how.

    name: "" of the recipe's own data. data: how files are read and images prepared; the classes of its labels are
    scored. classes: each of these that is scored, with the networks' classes that count as it. of: the classes of the
    networks in their order, the background first. case_set: where the cases are from.
    """

    name: str
    data: DataRecipe
    settings: EvaluateRecipe
    cases: tuple[Case, ...]
    classes: Mapping[str, tuple[str, ...]]
    of: tuple[str, ...]
    case_set: CaseSet

    @property
    def place(self) -> Path:
        """Where its judgements are below the folder of a run, an arm or a seed."""
        return Path("elsewhere", self.name) if self.name else Path()

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """For each class of the networks, the class of `data.labels` that it counts as; the background where none."""
        numbers = {name: number for number, name in enumerate(self.data.labels)}
        as_class = {counting: numbers[name] for name, of in self.classes.items() for counting in of}
        return tuple(as_class.get(name, 0) for name in self.of)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the files, report, split and group of each case."""
        return fingerprints(self.cases)

    def shows(self, privilege: str) -> bool:
        """Whether the cases have what a network of the privilege is shown: every one a report, or some something.

        The recipe's own always do: their check stops a run where something is missing that may not be.
        """
        if not self.name:
            return True
        if "report" in PRIVILEGES[privilege].needs:
            return all(case.report is not None for case in self.cases)
        return PRIVILEGES[privilege].reading is None or any(case.report or case.attributes for case in self.cases)

    def key(self) -> dict[str, Any]:
        """What a judgement stands for, beside the weights: the same key, the same scores."""
        key = {
            "cases": [[case.name, self.fingerprints[case.name], case.volume] for case in self.cases],
            "labels": [[name, value] for name, value in self.data.labels.items()],
            "mask_rule": self.data.mask_rule,
            "ignore": self.data.ignore,
            "tolerance": self.settings.tolerance,
            "unit": self.settings.unit,
            "probes": self.settings.probes,
        }
        if self.name:  # at home the weights stand for these
            key |= {"counted": list(self.counted), "normalize": self.data.normalize, "clip": self.data.clip}
        return key


def home_set(recipe: Recipe, cases: Sequence[Case], case_set: CaseSet) -> EvaluationSet:
    """The recipe's own cases. cases: usable ones of the splits that are judged."""
    names = tuple(recipe.data.labels)
    classes = {name: (name,) for name in names[1:]}
    return EvaluationSet("", recipe.data, recipe.evaluate, tuple(cases), classes, names, case_set)


def other_set(recipe: Recipe, name: str) -> EvaluationSet:
    """The cases of `evaluate.elsewhere.NAME` that are judged, as its files and the recipe's class names say.

    Raises RecipeError for labels or classes that are missing, DataError for a folder that cannot be read.
    """
    part = recipe.evaluate.elsewhere[name]
    where = f"evaluate.elsewhere.{name}"
    if not part.root:
        remedy = f"--set {where}.root=FOLDER, or judge on the recipe's own data alone: --set evaluate.elsewhere={{}}"
        raise RecipeError("no folder is named for this data set", where=f"{where}.root", remedy=remedy)
    data = part.as_data(recipe.data)
    with _about(name):
        case_set = read_cases(data)
        judged = _judged(case_set.cases, part)
    if len(part.labels) < 2:
        known = ", ".join(f"{label}: {value}" for label, value in case_set.labels.items())
        raise RecipeError(
            "the labels of this data set are missing: which stored mask values mean which of its classes",
            where=f"{where}.labels",
            expected=f"labels: {{{known or 'background: 0, lesion: 255'}}}",
            remedy=f"`preceptor check {part.root}` proposes them",
        )
    faults = part.class_faults(recipe.data.labels)
    if faults:
        raise RecipeError("the classes of the two data sets do not fit", where=f"{where}.classes", offenders=faults)
    if not judged:
        raise DataError("no case to judge", where=case_set.root, found=f"splits {part.splits}")
    unit = part.unit or ("slice" if recipe.evaluate.unit == "slice" else "auto")
    found = EvaluationSet(
        name,
        data,
        recipe.evaluate.model_copy(update={"unit": unit}),
        usable(judged, data),
        part.class_map(recipe.data.labels),
        tuple(recipe.data.labels),
        replace(case_set, cases=judged),
    )
    with _about(name):
        units(found.cases, unit)
    return found


def _judged(cases: Sequence[Case], part: OtherDataRecipe) -> tuple[Case, ...]:
    """The cases of the chosen splits, or all; as test cases, which they are here whatever they are elsewhere."""
    if part.splits is not None:
        cases = [case for case in assign_splits(cases, part.split) if case.split in part.splits]
    return tuple(replace(case, split="test") for case in cases)


def check_other_set(
    found: EvaluationSet, recipe: Recipe, learned: Sequence[Case], folder: Path, progress: Progress
) -> None:
    """Refuse another data set that cannot be judged; a check that stands for the same cases is not done again.

    learned: the cases that networks of the run are trained on or chosen by. folder: where `data.json` and the manifest
    `cases.csv` go. Raises DataError for faulty files and for pictures that are among `learned`.
    """
    name = found.name
    part = recipe.evaluate.elsewhere[name].model_dump(mode="json")
    path = folder / "data.json"
    if path.is_file():
        known = read_json(path)
        if known["recipe"] == part and known["fingerprints"] == found.fingerprints:
            return
    with _about(name):
        report = _checked(recipe, found, progress)
        _require_unseen(found, report.contents, learned, progress)
        preprocessing = Preprocessing.from_recipe(found.data)
        for case in found.cases:
            require_volume(case, preprocessing)
    if report.warnings:
        progress.note(_spoken(f"{name}: {render_findings(report.warnings)}", name))
    write_manifest(folder / "cases.csv", found.cases, found.case_set.root)
    told = {"scored": scored(found.cases, found.settings.unit), "unit": distances_in(found.cases, found.settings.unit)}
    write_json(path, {**report.to_dict(), **told, "recipe": part, "fingerprints": found.fingerprints})


def _checked(recipe: Recipe, found: EvaluationSet, progress: Progress) -> CheckReport:
    reads = needs_reports(recipe) and any(case.report is not None for case in found.case_set.cases)
    counter = callback(progress, f"check {found.name}")
    report = check(found.case_set, found.data, recipe.reports if reads else None, progress=counter)
    kept = tuple(item for item in report.findings if item.code != "missing-split")  # nothing is trained here
    report = replace(report, findings=kept)
    report.raise_errors()
    return report


def _require_unseen(
    found: EvaluationSet, contents: Mapping[str, str], learned: Sequence[Case], progress: Progress
) -> None:
    """Refuse cases whose pixels are those of a case that a network learned from or was chosen by (fault 12)."""
    counter = callback(progress, f"compare {found.name} with the training cases")
    seen: dict[str, str] = {}
    for done, case in enumerate(learned, start=1):
        pixels = read_image(case.image, case.slice).pixels
        if pixels.min() < pixels.max():
            seen.setdefault(content_hash(pixels), f"{case.name} ({case.split})")
        counter(done, len(learned))
    both = [f"{case}: the same pixels as {seen[content]}" for case, content in contents.items() if content in seen]
    if both:
        raise DataError(
            "these cases are among those that the networks are trained on or chosen by",
            where=found.case_set.root,
            found=f"{len(both)} of {len(found.cases)} cases",
            offenders=both,
            remedy=f"judge other cases, such as `evaluate.elsewhere.{found.name}.splits: [test]`",
        )


_KEYS = "|".join(FilesRecipe.model_fields)
_HOME_KEY = re.compile(rf"(?<![\w./-])(data\.(?=(?:{_KEYS}|normalize)\b)|evaluate\.(?=unit\b))")
"""A key of the recipe's own data or their judging, in a text about another data set."""


def _spoken(told: object, name: str) -> str:
    return _HOME_KEY.sub(f"evaluate.elsewhere.{name}.", str(told))


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Errors of reading and checking, with the keys that this data set has in the recipe."""
    try:
        yield
    except UserError as error:
        shown = {key: getattr(error, key) for key in ("what", "where", "found", "expected", "remedy")}
        told = {key: value if value is None else _spoken(value, name) for key, value in shown.items()}
        if "evaluate.elsewhere" not in str(told["where"]):
            told["where"] = f"evaluate.elsewhere.{name}" + (f": {told['where']}" if told["where"] else "")
        offenders = [_spoken(item, name) for item in error.offenders]
        raise type(error)(str(told.pop("what")), **told, offenders=offenders) from error  # type: ignore[arg-type]
