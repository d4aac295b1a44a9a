"""The cases and report features that a recipe asks for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preceptor.data.attributes import read_attributes
from preceptor.data.case import Case, CaseSet
from preceptor.data.layouts import read_cases
from preceptor.data.splits import usable
from preceptor.errors import DataError, RecipeError
from preceptor.progress import Progress, callback
from preceptor.recipe import Recipe
from preceptor.recipe_data import ReportRecipe
from preceptor.text.attributes import coded

if TYPE_CHECKING:
    from preceptor.text.features import ReportFeatures


def read_case_set(recipe: Recipe, progress: Progress) -> CaseSet:
    """The recipe's cases; phantoms are generated where the recipe asks for them and their folder does not exist."""
    data = recipe.data
    if not data.root:
        raise RecipeError("data.root is empty", where=recipe.name, remedy="--set data.root=FOLDER")
    root = Path(data.root).expanduser()
    if data.phantoms is not None:
        from preceptor.data.phantoms import holds_phantoms, write_phantoms

        if not root.exists():
            write_phantoms(root, data.phantoms, callback(progress, "phantoms"))
        elif not holds_phantoms(root, data.phantoms):
            raise DataError(
                "the folder holds other data than the phantoms of the recipe",
                where=root,
                expected=f"{data.phantoms.cases} films of {data.phantoms.size} pixels, seed {data.phantoms.seed}",
                remedy="name a new folder with --set data.root=FOLDER, or remove this one",
            )
    return with_attributes(read_cases(data), recipe.reports)


def with_attributes(case_set: CaseSet, reports: ReportRecipe) -> CaseSet:
    """The cases with the attributes of the tables that `reports.attributes` names, "" where no row is of them.

    Raises DataError for a table that is not there or cannot be used.
    """
    if reports.attributes is None:
        return case_set
    named = [reports.attributes] if isinstance(reports.attributes, str) else reports.attributes
    known: dict[str, str] = {}
    findings = list(case_set.findings)
    for name in named:
        beside = case_set.root / name
        path = beside if beside.is_file() else Path(name).expanduser()
        if not path.is_file():
            raise DataError(
                "there is no such table of attributes",
                where="reports.attributes",
                found=name,
                expected=f"a .csv or .xlsx below {case_set.root}, or a path from where the command is given",
            )
        found, told = read_attributes(path, case_set.cases)
        known |= {case: coded(values) for case, values in found.items()}
        findings += told
    cases = tuple(replace(case, attributes=known.get(case.name, "")) for case in case_set.cases)
    return replace(case_set, cases=cases, findings=tuple(findings))


def embed_reports(recipe: Recipe, path: Path, progress: Progress) -> "ReportFeatures":
    """Embed every wording that a run of the recipe will ask for into the file `path`, on other data sets as well.

    Raises DataError where no case has a report.
    """
    from preceptor.evaluation_sets import other_set

    cases = usable(read_case_set(recipe, progress).cases, recipe.data)
    if not any(case.report for case in cases):
        raise DataError(
            "no case has a report",
            where=recipe.data.root,
            remedy="`preceptor check` tells which table of reports each layout has, and what is wrong with it",
        )
    features = embed_wordings(recipe, cases, path, callback(progress, "embed reports"))
    for judged in (other_set(recipe, name) for name in recipe.evaluate.elsewhere):
        if judged.shows("report"):
            features = embed_wordings(recipe, judged.cases, path, callback(progress, f"embed reports of {judged.name}"))
    return features


def embed_wordings(recipe: Recipe, cases: Sequence[Case], path: Path, counter: Any) -> "ReportFeatures":
    """Reports as they are, rewritten for flipped images, and wrong ones for the probes."""
    from preceptor.data.augmentation import report_variants
    from preceptor.text.encoders import build_encoder
    from preceptor.text.features import embed

    wanted = _judged_wordings(cases) | set(report_variants(cases, recipe.augment))
    return embed(sorted(wanted), build_encoder(recipe.reports), path, counter)


def require_wordings(cases: Sequence[Case], path: Path) -> None:
    """Raise DataError that lists the wordings which judging these cases takes and the file of features lacks."""
    from preceptor.text.features import ReportFeatures

    ReportFeatures(path).batch(sorted(_judged_wordings(cases)))


def _judged_wordings(cases: Sequence[Case]) -> set[str]:
    from preceptor.text.probes import wrong_reports

    reports = [case.report or "" for case in cases]
    return {*reports, *(text for texts in wrong_reports(reports, 0).values() for text in texts)}
