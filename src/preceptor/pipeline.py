"""From a recipe to a report, stage by stage: data, reports, teacher, control, student, judging, summary, package.

Every stage leaves files and is not redone when they are there. The same command on the same folder goes on where it
stopped; a changed recipe or data set is refused with the differences.
"""

import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from preceptor.data.case import Case, CaseSet, write_manifest
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.progress import Kind, Progress, callback, make_progress
from preceptor.recipe import Recipe, read_recipe
from preceptor.storage import hash_file, hash_json, read_json, write_json, write_text

Stage = Literal["teacher", "control", "student", "evaluate"]
STAGES: tuple[Stage, ...] = ("teacher", "control", "student", "evaluate")

CHANGEABLE = (
    "description",
    "data.licence",
    "data.source",
    "data.root",
    "training.epochs",
    "training.workers",
    "training.devices",
    "training.nodes",
    "training.accelerator",
    "training.strategy",
    "training.checkpoint_minutes",
    "teacher.source",
    "evaluate.",
    "seeds",
)
"""Recipe keys that may differ when a run is resumed: they do not change what finished stages have learned.

`data.root` may move since the content of the cases is checked; more seeds may be added.
"""


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

    only: stages to do; all when empty. changes: `a.b=value` on the recipe. Raises UserError for what a
    user can mend.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, changes)
    place = Path(folder) if folder else Path("runs") / recipe.name
    with _locked(place):
        return Pipeline(recipe, place.resolve(), progress).run(only or STAGES)


class Pipeline:
    """The stages of one run. Properties are computed when a stage first needs them."""

    def __init__(self, recipe: Recipe, folder: Path, kind: Kind = "silent") -> None:
        self.recipe, self.folder, self.kind = recipe, folder, kind
        self.progress: Progress = make_progress(kind)

    def run(self, stages: Sequence[Stage]) -> Outcome:
        """Do the stages in their order, for each seed."""
        self.require_same_recipe()
        self.check_data()
        for seed in self.recipe.seeds:
            for arm in ("teacher", "control", "student"):
                if arm in stages and arm in self.arms:
                    self.train(arm, seed)
        if "evaluate" not in stages:
            return Outcome(self.folder, None, None)
        for arm in self.arms:
            self.judge(arm)
        return self.summarise()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that the recipe asks for."""
        if self.recipe.teacher is None:
            return ("control",)
        return ("teacher", "control", "student") if self.recipe.distill else ("teacher", "control")

    def require_same_recipe(self) -> None:
        """Write the resolved recipe, or refuse a folder whose recipe differs in what was learned from it (fault 16)."""
        path = self.folder / "recipe.yaml"
        if path.exists():
            before = read_recipe(path)
            changed = differences(before.plain(), self.recipe.plain())
            refused = [line for line in changed if not line.startswith(CHANGEABLE)]
            if refused:
                raise RecipeError(
                    "the run in this folder was made with another recipe",
                    where=self.folder,
                    offenders=refused,
                    remedy="undo the change, or name another folder with --out",
                )
        write_text(path, self.recipe.to_yaml())

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
        from preceptor.environment import environment
        from preceptor.text.encoders import build_encoder

        given = self.recipe.reports.features
        path = self.folder / "data.json"
        prints = fingerprints(self.usable(self.case_set.cases))
        if path.exists():
            before = read_json(path)["fingerprints"]
            changed = differences(before, prints)
            if changed:
                raise DataError(
                    "the data set changed since this run began",
                    where=self.case_set.root,
                    offenders=changed,
                    remedy="restore the data, or name another folder with --out",
                )
            return
        report = check(
            self.case_set,
            self.recipe.data,
            self.recipe.reports if self.needs_reports else None,
            encoder=build_encoder(self.recipe.reports) if self.needs_reports and not given else None,
            progress=callback(self.progress, "check data"),
        )
        report.raise_errors()
        for finding in report.warnings:
            self.progress.note(f"warning: {finding.where}: {finding.message}")
        write_manifest(self.folder / "cases.csv", self.usable(self.case_set.cases), self.case_set.root)
        write_json(self.folder / "environment.json", environment())
        write_json(path, {**report.to_dict(), "fingerprints": prints})

    def usable(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """The cases that take part: with a mask, and with the report that the recipe allows to be empty."""
        empty = self.recipe.data.missing_text == "empty"
        return tuple(
            replace(case, report="") if case.report is None and empty else case
            for case in cases
            if case.mask is not None and case.split
        )

    def cases(self, split: str) -> tuple[Case, ...]:
        """The usable cases of one split, in their order."""
        return tuple(case for case in self.usable(self.case_set.cases) if case.split == split)

    @property
    def needs_reports(self) -> bool:
        return self.recipe.teacher is not None and self.recipe.teacher.privilege == "report"

    @cached_property
    def features(self) -> Path | None:
        """The file of report features, holding every wording that any stage will ask for; None without reports."""
        if not self.needs_reports:
            return None
        if self.recipe.reports.features:
            return Path(self.recipe.reports.features)
        path = self.folder / "reports.safetensors"
        _embed(self.recipe, self.usable(self.case_set.cases), path, callback(self.progress, "embed reports"))
        return path

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
            self.folder.parent / "cache",
            callback(self.progress, f"decode {split}"),
        )

    @cached_property
    def shelves(self) -> tuple[Any, Any]:
        """The shelves of training and validation."""
        return self.shelf("train"), self.shelf("val")

    def place(self, arm: str, seed: int) -> Path:
        """The folder of one arm and seed."""
        return self.folder / arm / f"seed-{seed}"

    def train(self, arm: str, seed: int) -> None:
        """Train one arm, or take the teacher that the recipe names, and package its best state."""
        from preceptor.learning.arm import ArmJob, train_arm
        from preceptor.learning.training import is_done

        folder = self.place(arm, seed)
        if arm == "teacher" and self.recipe.teacher and self.recipe.teacher.source:
            self.take_teacher(Path(self.recipe.teacher.source), seed)
            return
        settings = self.recipe.training_of(arm)
        if is_done(folder, settings) and (folder / "package").exists():
            return
        teacher = None
        if arm == "student":
            teacher = self.place("teacher", seed) / "package"
            if not teacher.exists():
                raise StorageError(
                    "the student needs a trained teacher",
                    where=teacher,
                    remedy="run the teacher stage first (--only teacher), or set teacher.source",
                )
            self.warn_of_weak_teacher(seed)
        if not is_done(folder, settings):
            train, validation = self.shelves
            train_arm(ArmJob(self.recipe, arm, seed, folder, train, validation, self.features, teacher, self.kind))
        self.package(arm, seed)

    def warn_of_weak_teacher(self, seed: int) -> None:
        """Say so when the teacher is no better than the control on validation (fault 21)."""
        scores = []
        for arm in ("teacher", "control"):
            path = self.place(arm, seed) / "done.json"
            scores.append(read_json(path).get("best") if path.exists() else None)
        if None not in scores and scores[0] <= scores[1]:
            self.progress.note(
                f"warning: seed {seed}: the teacher's validation Dice ({scores[0]:.3f}) is not above the control's "
                f"({scores[1]:.3f}); distilling it may not help"
            )

    def take_teacher(self, source: Path, seed: int) -> None:
        """Copy the package of another run's teacher (same seed, else its first) or a package as it is."""
        from preceptor.delivery.package import load_package
        from preceptor.learning.arm import check_same_view

        candidates = [source / "teacher" / f"seed-{seed}" / "package", *sorted(source.glob("teacher/seed-*/package"))]
        found = next((c for c in [*candidates, source] if (c / "package.json").is_file()), None)
        if found is None:
            raise StorageError("neither a run with a trained teacher nor a package", where=source)
        target = self.place("teacher", seed)
        package = load_package(found)
        check_same_view(self.recipe, package, found)
        wanted = "report" if self.needs_reports else "none"
        if package.needs != wanted:
            raise RecipeError(
                "the named teacher is shown something else than the recipe says",
                where=found,
                found=package.needs,
                expected=wanted,
                remedy="set teacher.privilege accordingly",
            )
        same = (target / "package").exists() and _weights(target / "package") == _weights(found)
        if not same:
            shutil.rmtree(target / "package", ignore_errors=True)
            shutil.copytree(found, target / "package")
            write_json(target / "done.json", {"source": str(source), "best": package.card.get("validation")})

    def package(self, arm: str, seed: int) -> None:
        """Write the arm's best state as a package."""
        from preceptor.data.transforms import Preprocessing
        from preceptor.delivery.package import save_package
        from preceptor.learning.arm import build_network, segmentor_of
        from preceptor.storage import read_tensors
        from preceptor.text.features import ReportFeatures

        folder = self.place(arm, seed)
        features = ReportFeatures(self.features) if self.features else None
        segmentor = segmentor_of(self.recipe, arm, features)  # type: ignore[arg-type]
        segmentor.pop("pretrained")
        network = build_network(segmentor, seed)
        state, _ = read_tensors(folder / "best.safetensors")
        network.load_state_dict(state)
        done = read_json(folder / "done.json")
        card = {
            "name": self.recipe.name,
            "arm": arm,
            "seed": seed,
            "validation": done["best"],
            "epochs": done["epochs"],
            "best_epoch": done["best_epoch"],
            "licence": self.recipe.data.licence,
            "source": self.recipe.data.source,
            "encoder": features.identity if arm == "teacher" and features else None,
        }
        save_package(
            folder / "package",
            network,
            segmentor=segmentor,
            preprocessing=Preprocessing.from_recipe(self.recipe.data),
            labels=self.recipe.data.labels,
            card=card,
        )

    def judge(self, arm: str) -> None:
        """Judge every seed of an arm on the recipe's splits; probe a report-guided teacher."""
        for seed in self.recipe.seeds:
            folder = self.place(arm, seed)
            if not (folder / "package").exists():
                raise StorageError(
                    f"{arm} of seed {seed} is not trained yet",
                    where=folder,
                    remedy=f"give the command without --only, or with --only {arm}",
                )
            key = self.judging_key(arm, folder)
            mark = folder / "judged.json"
            if mark.exists() and read_json(mark) == key:
                continue
            self.judge_seed(arm, seed, folder)
            write_json(mark, key)
        self.join(arm, "cases.csv")
        if arm == "teacher" and self.needs_reports and self.recipe.evaluate.probes:
            self.join(arm, "probes.csv")

    def judging_key(self, arm: str, folder: Path) -> dict[str, Any]:
        """What a judgement depends on; a judgement with the same key is kept."""
        settings = self.recipe.evaluate
        return {
            "weights": _weights(folder / "package"),
            "splits": list(settings.splits),
            "tolerance": settings.tolerance,
            "probes": settings.probes,
            "data": hash_json(read_json(self.folder / "data.json")["fingerprints"]),
        }

    def judge_seed(self, arm: str, seed: int, folder: Path) -> None:
        """The per-case table of one arm and seed, its cost, and for a report-guided teacher its probes."""
        import pandas as pd
        import torch

        from preceptor.delivery.package import load_package
        from preceptor.evaluation.cost import measure_cost
        from preceptor.judging import Judge, wrong_reports
        from preceptor.text.features import ReportFeatures

        package = load_package(folder / "package")
        cases = [case for split in self.recipe.evaluate.splits for case in self.cases(split)]
        if not cases:
            raise DataError("no case to judge", where=f"evaluate.splits {self.recipe.evaluate.splits}")
        features = ReportFeatures(self.features) if package.needs == "report" and self.features else None
        reports = [case.report or "" for case in cases]
        judge = Judge(self.recipe)
        name = f"judge {arm}, seed {seed}"
        rows = judge.rows(
            package, cases, seed, features, reports, folder / "predictions", callback(self.progress, name)
        )
        _write_frame(folder / "cases.csv", pd.DataFrame(rows))
        if features is not None and self.recipe.evaluate.probes:
            probes = []
            for probe, texts in wrong_reports(reports, seed).items():
                # shuffling differs by seed: wordings that were not embedded yet are none, since it permutes them
                counter = callback(self.progress, f"{name}, {probe.replace('_', ' ')} reports")
                found = judge.rows(package, cases, seed, features, texts, None, counter)
                probes += [{**row, "probe": probe} for row in found]
            _write_frame(folder / "probes.csv", pd.DataFrame(probes))
        height, width = self.recipe.data.size
        image = torch.zeros(1, self.recipe.data.channels, height, width)
        condition = features.batch(reports[:1]) if features is not None else None
        write_json(folder / "cost.json", {**measure_cost(package.network, image, condition), "needs": package.needs})

    def join(self, arm: str, name: str) -> None:
        """One table of an arm over all seeds."""
        import pandas as pd

        tables = [
            pd.read_csv(self.place(arm, seed) / name, dtype={"case": str, "group": str}, keep_default_na=False)
            for seed in self.recipe.seeds
        ]
        _write_frame(self.folder / arm / name, pd.concat(tables))

    def summarise(self) -> Outcome:
        """summary.json, report.html and the student's package, from the files of the arms."""
        from preceptor.evaluation.report import write_report
        from preceptor.evaluation.summary import summarise_run

        found = read_json(self.folder / "data.json")
        spacings = found["facts"].get("spacing")
        summary = summarise_run(
            self.folder,
            self.recipe,
            facts={arm: self.arm_facts(arm) for arm in self.arms},
            data={key: value for key, value in found["facts"].items() if key != "root"},
            leak=found["leak"],
            unit="mm" if spacings else "pixel",
        )
        write_json(self.folder / "summary.json", summary)
        self.ship()
        report = write_report(self.folder, self.case_set.root)
        return Outcome(self.folder, summary, report)

    def arm_facts(self, arm: str) -> dict[str, Any]:
        """Cost and training of an arm: the medians of what its seeds measured, and what its network needs."""
        places = [self.place(arm, seed) for seed in self.recipe.seeds]
        costs, done = ([read_json(place / name) for place in places] for name in ("cost.json", "done.json"))
        facts = {
            name: statistics.median(cost[name] for cost in costs) for name in ("parameters", "latency_ms", "memory_mb")
        }
        facts |= {
            name: statistics.median(item[name] for item in done) for name in ("epochs", "minutes") if name in done[0]
        }
        return {**facts, "parameters": int(facts["parameters"]), "needs": costs[0]["needs"]}

    def ship(self) -> None:
        """The package of the run: the student of the seed with the best validation Dice (the control without one)."""
        arm = self.arms[-1] if self.arms[-1] != "teacher" else "control"
        best = max(self.recipe.seeds, key=lambda seed: read_json(self.place(arm, seed) / "done.json")["best"])
        target = self.folder / "package"
        fresh = self.folder / ".package.partial"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(self.place(arm, best) / "package", fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)


def read_case_set(recipe: Recipe, progress: Progress) -> CaseSet:
    """The recipe's cases with their splits assigned; phantoms are generated where the recipe asks for them."""
    from preceptor.data.layouts import read_cases
    from preceptor.data.phantoms import write_phantoms
    from preceptor.data.splits import assign_splits

    data = recipe.data
    if not data.root:
        raise RecipeError("data.root is empty", where=recipe.name, remedy="--set data.root=FOLDER")
    root = Path(data.root).expanduser()
    if data.phantoms is not None and not root.exists():
        write_phantoms(root, data.phantoms, callback(progress, "phantoms"))
    found = read_cases(data)
    return replace(found, cases=assign_splits(found.cases, data.split))


def embed_reports(recipe: Recipe, path: Path, progress: Progress) -> Any:
    """Embed every wording that a run of the recipe will ask for into `path`; gives the ReportFeatures."""
    cases = read_case_set(recipe, progress).cases
    return _embed(recipe, cases, path, callback(progress, "embed reports"))


def _embed(recipe: Recipe, cases: Sequence[Case], path: Path, counter: Any) -> Any:
    from preceptor.data.augmentation import report_variants
    from preceptor.judging import wrong_reports
    from preceptor.text.encoders import build_encoder
    from preceptor.text.features import embed

    reports = [case.report or "" for case in cases]
    wrong = wrong_reports(reports, 0)
    wanted = {*reports, *report_variants(cases, recipe.augment), *(text for texts in wrong.values() for text in texts)}
    return embed(sorted(wanted), build_encoder(recipe.reports), path, counter)


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Lines `key: before -> after` for each leaf in which two nested values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for name in dict.fromkeys([*before, *after]):
            inner = f"{key}.{name}" if key else str(name)
            lines += differences(before.get(name, "(absent)"), after.get(name, "(absent)"), inner)
        return lines
    return [] if before == after else [f"{key}: {before} -> {after}"]


def fingerprints(cases: Sequence[Case]) -> dict[str, str]:
    """For each case a hash of its files, report, split and group."""
    files: dict[Path, str] = {}
    result = {}
    for case in cases:
        for path in (case.image, case.mask):
            if path is not None and path not in files:
                files[path] = hash_file(path)
        mask = files[case.mask] if case.mask else None
        content = [files[case.image], mask, case.slice, case.split, case.group, case.report]
        result[case.name] = hash_json(content)[:16]
    return result


def _weights(package: Path) -> str:
    return hash_file(package / "weights.safetensors")


def _write_frame(path: Path, frame: Any) -> None:
    write_text(path, frame.to_csv(index=False))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time in a run folder; the lock is gone with its process, however that ends."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise StorageError(
            "another process is working in this run folder", where=folder, remedy="wait for it, or use --out"
        ) from error
