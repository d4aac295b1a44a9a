"""From a recipe to a report, stage by stage: data, reports, teacher, control, student, judging, summary, package.

Every stage leaves files and is not redone when they are there. The same command on the same folder goes on where it
stopped; a changed recipe or data set is refused with the differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from preceptor.data.case import Case, CaseSet, write_manifest
from preceptor.data.splits import usable
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.learning.launch import cluster_rank
from preceptor.preparing import embed_wordings, read_case_set, require_wordings
from preceptor.progress import Kind, Progress, callback, make_progress
from preceptor.recipe import Recipe, read_recipe, validate_recipe
from preceptor.resuming import (
    fingerprints,
    locked,
    require_same_data,
    require_same_encoder,
    require_same_recipe,
    require_same_teachers,
)
from preceptor.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from preceptor.evaluation_sets import EvaluationSet
    from preceptor.learning.arm import ArmJob
    from preceptor.learning.privilege import Reader

Stage = Literal["teacher", "control", "student", "evaluate"]
STAGES: tuple[Stage, ...] = ("teacher", "control", "student", "evaluate")


@dataclass(frozen=True)
class Outcome:
    """Where a run left its files; summary and report are None until all arms are judged."""

    folder: Path
    summary: dict[str, Any] | None
    report: Path | None


def run(
    recipe: Recipe | str | Path,
    folder: Path | str | None = None,
    *,
    only: Sequence[Stage] = (),
    progress: Kind = "silent",
    changes: Sequence[str] = (),
) -> Outcome:
    """Run a recipe into `folder` (default: `runs/<name>`), or go on with what stands there.

    only: stages to do; all when empty; "evaluate" beside arms judges these arms only.
    changes: `a.b=value` on the recipe. Raises UserError for what a user can mend.
    """
    if isinstance(recipe, Recipe):
        recipe = validate_recipe(recipe.plain(), recipe.name, changes)
    else:
        recipe = read_recipe(recipe, changes)
    place = Path(folder) if folder else Path("runs") / recipe.name
    if cluster_rank():
        Pipeline(recipe, place.resolve(), progress).follow(only or STAGES)
        return Outcome(place, None, None)
    with locked(place):
        return Pipeline(recipe, place.resolve(), progress).run(only or STAGES)


class Pipeline:
    """The stages of one run. Properties are computed when a stage first needs them."""

    def __init__(self, recipe: Recipe, folder: Path, kind: Kind = "silent") -> None:
        self.recipe, self.folder, self.kind = recipe, folder, kind
        self.progress: Progress = make_progress(kind)

    def run(self, stages: Sequence[Stage]) -> Outcome:
        """Do the stages in their order, for each seed."""
        from preceptor.learning.arm import check_arms

        check_arms(self.recipe)
        require_same_recipe(self.folder, self.recipe)
        others = list(self.elsewhere.values())  # a wrong folder is told before the long checks
        self.check_data()
        self.check_elsewhere(others)
        write_text(self.folder / "recipe.yaml", self.recipe.to_yaml())
        asked = [arm for arm in self.recipe.arms if _stage(arm) in stages]
        for seed in self.recipe.seeds:
            for arm in asked:
                self.train(arm, seed)
        if "evaluate" in stages:
            for arm in asked or self.recipe.arms:
                self.judge(arm)
            if all(self.is_judged(arm) for arm in self.recipe.arms):
                return self.summarise()
        return Outcome(self.folder, None, None)

    def follow(self, stages: Sequence[Stage]) -> None:
        """Train along with the process of rank 0, which does everything else."""
        from preceptor.learning.following import follow

        arms = [arm for arm in self.recipe.arms if _stage(arm) in stages and not self.taken(arm)]
        follow(
            (self.place(arm, seed), self.recipe.training_of(arm), partial(self.job, arm, seed))
            for seed in self.recipe.seeds
            for arm in arms
        )

    def taken(self, arm: str) -> str | None:
        """The run or package that an arm is taken from instead of being trained here."""
        if arm in self.recipe.taught:
            return self.recipe.taught[arm].source
        return self.recipe.control.source if arm == "control" else None

    @cached_property
    def case_set(self) -> CaseSet:
        """The cases of the recipe with their splits; generated first where the recipe asks for phantoms."""
        if len(self.recipe.data.labels) < 2:
            raise RecipeError(
                "data.labels is missing: which stored mask values mean which class",
                where=self.recipe.name,
                expected="labels: {background: 0, lesion: 255}",
                remedy=f"`preceptor check {self.recipe.data.root}` proposes them",
            )
        return read_case_set(self.recipe, self.progress)

    def check_data(self) -> None:
        """Check the data set once, refuse errors, and refuse other data than the run began with."""
        from preceptor.data.check import check
        from preceptor.data.check_findings import render_findings
        from preceptor.environment import environment
        from preceptor.learning.privilege import encodes_reports, needs_reports, reads_attributes
        from preceptor.text.encoders import build_encoder
        from preceptor.text.features import ReportFeatures

        encodes = encodes_reports(self.recipe)
        given = self.recipe.reports.features if encodes else None
        identity = ReportFeatures(given).identity if given else None
        path = self.folder / "data.json"
        if path.exists():
            known = read_json(path)
            require_same_data(known["fingerprints"], fingerprints(self.usable), self.case_set.root)
            require_same_encoder(known.get("encoder"), identity, given)
            return
        case_set = self.case_set  # before the encoder, whose download may take long
        encoder = build_encoder(self.recipe.reports) if encodes and not given else None
        report = check(
            case_set,
            self.recipe.data,
            self.recipe.reports if needs_reports(self.recipe) else None,
            encoder=encoder,
            progress=callback(self.progress, "check data"),
            overlays=self.folder / "overlays",
            attributes=self.recipe.reports if reads_attributes(self.recipe) else None,
        )
        report.raise_errors()
        if report.warnings:
            self.progress.note(render_findings(report.warnings))
        write_manifest(self.folder / "cases.csv", self.usable, self.case_set.root)
        write_json(self.folder / "environment.json", environment())
        identity = encoder.identity if encoder else identity
        write_json(path, {**report.to_dict(), "encoder": identity, "fingerprints": fingerprints(self.usable)})

    @cached_property
    def usable(self) -> tuple[Case, ...]:
        """The cases that take part, with their splits."""
        return usable(self.case_set.cases, self.recipe.data)

    def cases(self, split: str) -> tuple[Case, ...]:
        """The usable cases of one split, in their order."""
        return tuple(case for case in self.usable if case.split == split)

    @cached_property
    def features(self) -> Path | None:
        """The file of report features, holding every wording that any stage will ask for; None without reports."""
        from preceptor.learning.privilege import encodes_reports

        if not encodes_reports(self.recipe):
            return None
        others = [judged.cases for judged in self.elsewhere.values() if judged.shows("report")]
        if self.recipe.reports.features:
            path = Path(self.recipe.reports.features)
            for cases in others:
                require_wordings(cases, path)
            return path
        path = self.folder / "reports.safetensors"
        for cases in (self.usable, *others):
            embed_wordings(self.recipe, cases, path, callback(self.progress, "embed reports"))
        return path

    def reader(self, arm: str) -> "Reader | None":
        """What turns reports into what an arm is shown of them, if it is."""
        from preceptor.learning.privilege import reader_of

        return reader_of(self.recipe.privilege_of(arm), self.recipe.reports, self.features)

    @property
    def cache(self) -> Path:
        """Where what all runs beside each other share is kept."""
        return self.folder.parent / "cache"

    def shelf(self, split: str) -> Any:
        """Decoded and resized cases of one split, shared by the runs of a folder."""
        from preceptor.data.shelf import build_shelf
        from preceptor.data.transforms import Preprocessing

        data = self.recipe.data
        return build_shelf(
            self.cases(split),
            Preprocessing.from_recipe(data),
            data.labels,
            data.mask_rule,
            self.cache,
            callback(self.progress, f"decode {split}"),
            data.ignore,
        )

    @cached_property
    def shelves(self) -> tuple[Any, Any]:
        """The shelves of training and validation."""
        if not self.cases("val"):
            raise DataError(
                "no case validates, so the best epoch cannot be chosen",
                where="data.split",
                found=f"validation: {self.recipe.data.split.validation}, {len(self.cases('train'))} cases to train on",
                remedy="set `data.split.validation` above 0, or name validation cases in the layout or the manifest",
            )
        return self.shelf("train"), self.shelf("val")

    def place(self, arm: str, seed: int) -> Path:
        """The folder of one arm and seed."""
        return self.folder / arm / f"seed-{seed}"

    def train(self, arm: str, seed: int) -> None:
        """Train one arm, or take the one that the recipe names, and package its best state."""
        from preceptor.learning.arm import train_arm
        from preceptor.learning.following import opened
        from preceptor.learning.training import is_done
        from preceptor.packaging import is_packaged, package_arm, take_control, take_teacher

        folder, source = self.place(arm, seed), self.taken(arm)
        if source and arm == "control":
            cases = read_json(self.folder / "data.json")["fingerprints"]
            take_control(Path(source), folder, self.recipe, seed, cases)
            return
        if source:
            take_teacher(Path(source), folder, self.recipe, arm, seed, self.reader(arm))
            return
        settings = self.recipe.training_of(arm)
        finished = is_done(folder, settings) and is_packaged(folder)
        if arm == "student":
            self.check_teachers(seed, finished)
        if finished:
            return
        if not is_done(folder, settings):
            job = self.job(arm, seed)
            with opened(folder):
                train_arm(job)
        package_arm(folder, self.recipe, arm, seed, self.reader(arm))

    def check_teachers(self, seed: int, finished: bool) -> None:
        """Refuse other teachers than the student began with, or none; warn of weak ones before a training."""
        from preceptor.packaging import weights_hash

        places = {arm: self.place(arm, seed) / "package" for arm in self.recipe.taught}
        missing = [place for place in places.values() if not place.exists()]
        if missing and not finished:
            raise StorageError(
                "the student needs a trained teacher",
                where=missing[0],
                remedy="run the teacher stage first (--only teacher), or set teacher.source",
            )
        if not missing:
            hashes = {arm: weights_hash(place) for arm, place in places.items()}
            require_same_teachers(self.place("student", seed), hashes)
        if not finished:
            self.warn_of_weak_teachers(seed)

    def job(self, arm: str, seed: int) -> "ArmJob":
        """What the training of one arm needs, all of it on disk."""
        from preceptor.caching import keep_frozen
        from preceptor.learning.arm import ArmJob

        train, validation = self.shelves
        taught = self.recipe.taught if arm == "student" else ()
        teachers = {teacher: self.place(teacher, seed) / "package" for teacher in taught}
        folder = self.place(arm, seed)
        job = ArmJob(self.recipe, arm, seed, folder, train, validation, self.features, teachers, self.kind)
        return keep_frozen(job, self.cache, self.progress)

    def warn_of_weak_teachers(self, seed: int) -> None:
        """Say so when a teacher is no better than the control on validation (fault 21)."""

        def best(arm: str) -> float | None:
            path = self.place(arm, seed) / "done.json"
            return read_json(path).get("best") if path.exists() else None

        control = best("control")
        for arm in self.recipe.taught:
            teacher = best(arm)
            if teacher is not None and control is not None and teacher <= control:
                self.progress.note(
                    f"warning: seed {seed}: the validation Dice of the {arm} ({teacher:.3f}) is not above the "
                    f"control's ({control:.3f}); distilling it may not help"
                )

    @cached_property
    def home(self) -> "EvaluationSet":
        """The cases of the recipe's own splits on which arms are judged."""
        from preceptor.evaluation_sets import home_set

        cases = [case for split in self.recipe.evaluate.splits for case in self.cases(split)]
        if not cases:
            raise DataError("no case to judge", where=f"evaluate.splits {self.recipe.evaluate.splits}")
        return home_set(self.recipe, cases, self.case_set)

    @cached_property
    def elsewhere(self) -> "dict[str, EvaluationSet]":
        """The other data sets on which arms are judged."""
        from preceptor.evaluation_sets import other_set

        return {name: other_set(self.recipe, name) for name in self.recipe.evaluate.elsewhere}

    def check_elsewhere(self, others: "Sequence[EvaluationSet]") -> None:
        """Check other data sets before any training, and refuse what networks learn from here."""
        from preceptor.evaluation_sets import check_other_set

        learned = [*self.cases("train"), *self.cases("val")]
        for judged in others:
            check_other_set(judged, self.recipe, learned, self.folder / judged.place, self.progress)

    def judge(self, arm: str) -> None:
        """Judge every seed of an arm on the recipe's splits and on other data, and join the tables of the seeds."""
        from preceptor.caching import remembering
        from preceptor.judging import join_tables, judge_seed

        places = [self.place(arm, seed) for seed in self.recipe.seeds]
        for folder, seed in zip(places, self.recipe.seeds, strict=True):
            if not (folder / "package").exists():
                raise StorageError(
                    f"{arm} of seed {seed} is not trained yet",
                    where=folder,
                    remedy=f"give the command without --only, or with --only {arm}",
                )
        remember = partial(remembering, recipe=self.recipe, folder=self.cache)
        for judged in (self.home, *self.elsewhere.values()):
            if not judged.shows(self.recipe.privilege_of(arm)):
                continue
            for folder, seed in zip(places, self.recipe.seeds, strict=True):
                name = f"judge {arm}, seed {seed}" + (f", on {judged.name}" if judged.name else "")
                package, reader = folder / "package", self.reader(arm)
                judge_seed(package, folder / judged.place, judged, seed, reader, self.progress, name, remember)
            join_tables([folder / judged.place for folder in places], self.folder / arm / judged.place)

    def is_judged(self, arm: str) -> bool:
        """Whether an arm has its scores on the recipe's own data, and on the other data that it can be judged on."""
        shown = [found for found in (self.home, *self.elsewhere.values()) if found.shows(self.recipe.privilege_of(arm))]
        return all((self.folder / arm / found.place / "cases.csv").exists() for found in shown)

    def summarise(self) -> Outcome:
        """summary.json, report.html and the student's package, from the files of the arms."""
        from preceptor.evaluation.report import write_report
        from preceptor.summarising import summary_of

        summary = summary_of(self.folder, self.recipe, self.home, self.elsewhere)
        write_json(self.folder / "summary.json", summary)
        self.ship(summary)
        report = write_report(self.folder, self.case_set.root)
        return Outcome(self.folder, summary, report)

    def ship(self, summary: dict[str, Any]) -> None:
        """The package of the run: the student of the seed with the best validation Dice (the control without one)."""
        from preceptor.packaging import ship

        arm = "student" if "student" in self.recipe.arms else "control"
        best = max(self.recipe.seeds, key=lambda seed: read_json(self.place(arm, seed) / "done.json")["best"])
        gain = summary["gains"].get("student_over_control") if arm == "student" else None
        cases = {split: len(self.cases(split)) for split in ("train", "val", "test")}
        ship(self.place(arm, best) / "package", self.folder / "package", summary["arms"][arm], gain, cases)


def _stage(arm: str) -> Stage:
    """The stage that an arm belongs to: all teachers are one."""
    return "teacher" if arm.startswith("teacher") else cast(Stage, arm)
