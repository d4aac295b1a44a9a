"""One arm of a run, from files alone: which network, which task, which loaders.

An ArmJob holds paths and settings only, so that any process on any machine that sees the files can build the same arm.
Control and student are built by the same lines from the same seed; the one difference is the teacher.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException

from preceptor.data.loading import EvaluationLoader, TrainingLoader
from preceptor.data.shelf import Shelf
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import Package, load_package
from preceptor.distillers import zoo as distillers
from preceptor.distillers.pairs import describe_pairs, pairs_of
from preceptor.errors import Interrupted, RecipeError, TrainingError, UserError
from preceptor.learning.cache import CachedMaps
from preceptor.learning.launch import cluster_rank
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.privilege import (
    PRIVILEGES,
    Reader,
    condition_of,
    planned_condition,
    reader_of,
    readers_of,
)
from preceptor.learning.tasks import Distilled, FrozenTeacher, Lesson, Supervised
from preceptor.learning.training import Training, make_fabric
from preceptor.progress import Kind, Progress, make_progress
from preceptor.recipe import DistillRecipe, Recipe, TrainingRecipe
from preceptor.segmentors import zoo as segmentors
from preceptor.segmentors.base import Condition, Segmentor, Tap
from preceptor.storage import read_json, write_json

Taps = tuple[Tap, ...]


@dataclass(frozen=True)
class ArmJob:
    """Everything that the training of one arm needs. Shelves and features are on disk; teachers are packages by arm.

    kept, kept_validation: answers of frozen parts to the cases of either shelf, by identity, see `caching`.
    """

    recipe: Recipe
    arm: str
    seed: int
    folder: Path
    train: Shelf
    validation: Shelf
    features: Path | None = None
    teachers: Mapping[str, Path] = field(default_factory=dict)
    progress: Kind = "silent"
    kept: Mapping[str, CachedMaps] = field(default_factory=dict)
    kept_validation: Mapping[str, CachedMaps] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As progress bars call it: `student, seed 0`."""
        return f"{self.arm}, seed {self.seed}" if len(self.recipe.seeds) > 1 else self.arm


def segmentor_of(recipe: Recipe, arm: str, reader: Reader | None) -> dict[str, Any]:
    """The arm's network as plain values: name, size, options, in_channels, classes, condition.

    reader: of the arm's privilege, see `privilege.reader_of`.
    """
    part = recipe.segmentor_of(arm)
    return {
        "name": part.name,
        "size": part.size,
        "options": dict(part.options),
        "in_channels": recipe.data.channels,
        "classes": len(recipe.data.labels),
        "condition": condition_of(recipe.privilege_of(arm), reader),
        "pretrained": part.pretrained,
    }


def build_network(segmentor: dict[str, Any], seed: int) -> Segmentor:
    """The network of `segmentor_of`, with weights drawn from the seed alone."""
    torch.manual_seed(seed)
    options = dict(segmentor["options"])
    if segmentor.get("pretrained"):
        options["pretrained"] = segmentor["pretrained"]
    return segmentors.build(
        segmentor["name"],
        in_channels=segmentor["in_channels"],
        classes=segmentor["classes"],
        size=segmentor["size"],
        condition=Condition(**segmentor["condition"]) if segmentor["condition"] else None,
        **options,
    )


def build_task(job: ArmJob) -> Supervised | Distilled:
    """The arm's task with freshly drawn weights; the student's starts from the control's."""
    recipe, settings = job.recipe, job.recipe.training_of(job.arm)
    loss = segmentation_loss(settings.loss)
    name = recipe.privilege_of(job.arm)
    network = build_network(segmentor_of(recipe, job.arm, reader_of(name, recipe.reports, job.features)), job.seed)
    check_size(recipe, network)
    check_heads(settings, network, job.arm)
    if job.arm != "student":
        check_condition(recipe, network, job.arm)
        return Supervised(network, PRIVILEGES[name].view, loss, settings.loss_weights, settings.own_loss_weight)
    teachers = {arm: load_teacher(recipe, arm, place) for arm, place in job.teachers.items()}
    taps = {arm: teacher.network.taps for arm, teacher in teachers.items()}
    taught = lessons(recipe, network.taps, taps, job.seed)
    return Distilled(network, teachers, taught, loss, settings.loss_weights, settings.own_loss_weight)


def load_teacher(recipe: Recipe, arm: str, place: Path) -> FrozenTeacher:
    """The packaged teacher of an arm, frozen. Raises RecipeError where it would see something else than the student."""
    package = load_package(place)
    check_same_view(recipe, package, place)
    return FrozenTeacher(package.network, PRIVILEGES[recipe.privilege_of(arm)].view, recipe.taught[arm].mode)


def lessons(recipe: Recipe, student: Taps, teachers: Mapping[str, Taps], seed: int) -> list[Lesson]:
    """The distillers of a recipe between the taps of the student and of each teacher's arm."""
    names = [part.name for part in recipe.distill]
    found = []
    for index, part in enumerate(recipe.distill):
        arm = recipe.teacher_of(part)
        distiller = distillers.build(
            part.name,
            student_taps=student,
            teacher_taps=teachers[arm],
            taps=part.taps,
            **_given(part, seed * 1_000 + index),
        )
        course = {key: getattr(part, key) for key in ("weight", "warmup", "decay", "final")}
        prefix = f"{index}/" if names.count(part.name) > 1 else ""
        found.append(Lesson(distiller, arm, **course, prefix=prefix))
    return found


def told(recipe: Recipe, taught: Sequence[Lesson]) -> list[str]:
    """What each distiller compares, a line each: `at from teacher: layer4 [512, s8] <- layer4 [2048, s8]`."""
    lines = []
    for part, lesson in zip(recipe.distill, taught, strict=True):
        pairs = describe_pairs(pairs_of(lesson.distiller)) or "logits"
        lines.append(f"{part.name} from {lesson.teacher}, weight {lesson.weight:g}: {', '.join(pairs.splitlines())}")
    return lines


def _given(part: DistillRecipe, seed: int) -> dict[str, Any]:
    """The options of a distiller, and the published settings that they change."""
    preset = {"preset": part.preset} if part.preset else {}
    return {"seed": seed, **preset, **part.options}


def preprocessing_of(recipe: Recipe) -> Preprocessing:
    """How the recipe turns a picture into the network's input."""
    return Preprocessing.from_recipe(recipe.data)


def check_size(recipe: Recipe, network: Segmentor) -> None:
    """Raise RecipeError where the network cannot take images of the recipe's size."""
    if any(side % network.divisor for side in recipe.data.size):
        raise RecipeError(
            "the network cannot take images of this size",
            where="data.image_size",
            found=" x ".join(map(str, recipe.data.size)),
            expected=f"multiples of {network.divisor}",
        )


def check_condition(recipe: Recipe, network: Segmentor, arm: str) -> None:
    """Raise RecipeError where an arm is shown something that its network does not read."""
    privilege = recipe.privilege_of(arm)
    if PRIVILEGES[privilege].reading is not None and network.condition is None:
        raise RecipeError(
            f"the {arm} has the privilege {privilege}, but its segmentor reads none",
            where=f"{arm}.segmentor",
            found=recipe.segmentor_of(arm).name,
            remedy="choose a segmentor that takes a condition, such as guided, or set teacher.privilege=none",
        )


def check_heads(settings: TrainingRecipe, network: Segmentor, arm: str) -> None:
    """Raise RecipeError where side heads would learn nothing, or weights are given for heads that do not exist."""
    given = len(settings.loss_weights) - 1
    if given != network.side_heads:
        own = f"{arm.replace('teacher-', 'teachers.')}.training.loss_weights"
        common = (
            "training.loss_weights, of control and student; a teacher of another kind has its own in its `training`"
        )
        raise RecipeError(
            f"the network of the {arm} has {network.side_heads} side heads, and {given} weights are given for them",
            where="training.loss_weights",
            found=settings.loss_weights,
            expected=f"{1 + network.side_heads} weights: of the logits, then of each side head",
            remedy=f"set {own if arm.startswith('teacher') else common}; in a matrix, every teacher and student "
            "may have its own `training`",
        )


def check_same_view(recipe: Recipe, package: Package, where: object) -> None:
    """Raise RecipeError where teacher and student disagree in classes or preprocessing (fault 21)."""
    ours = preprocessing_of(recipe)
    faults = []
    if package.network.classes != len(recipe.data.labels):
        faults.append(f"classes: teacher {package.network.classes}, recipe {len(recipe.data.labels)}")
    named, asked = list(package.labels), list(recipe.data.labels)
    if named != asked and sorted(named) == sorted(asked):
        faults.append(f"order of data.labels: teacher {', '.join(named)}, recipe {', '.join(asked)}")
    theirs = package.preprocessing.to_dict()
    for key, value in ours.to_dict().items():
        if theirs.get(key) != value:
            faults.append(f"data.{key}: teacher {theirs.get(key)}, recipe {value}")
    if faults:
        raise RecipeError(
            "teacher and student would not see the same picture",
            where=where,
            offenders=faults,
            remedy="change the recipe's data section to the teacher's values, or train the teacher here",
        )


def check_arms(recipe: Recipe) -> None:
    """Build every network and distiller of the recipe without memory: a wrong name, option or size stops the run early.

    Raises RecipeError.
    """
    classes = max(2, len(recipe.data.labels))
    common = {"in_channels": recipe.data.channels, "classes": classes, "pretrained": None}
    networks = {}
    with torch.device("meta"):
        for arm in recipe.arms:
            condition = planned_condition(recipe.privilege_of(arm), recipe.reports)
            part = recipe.segmentor_of(arm).model_dump()
            networks[arm] = build_network({**part, **common, "condition": condition}, 0)
            check_size(recipe, networks[arm])
            check_heads(recipe.training_of(arm), networks[arm], arm)
    if recipe.distill:
        lessons(recipe, networks["student"].taps, {arm: networks[arm].taps for arm in recipe.taught}, 0)


def train_arm(job: ArmJob) -> None:
    """Train the arm of `job` to its end, in as many processes as its recipe says.

    Raises UserError with the first error of any process; the others end with it.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    errors = job.folder / "error.json"
    errors.unlink(missing_ok=True)
    fabric = make_fabric(job.recipe.training_of(job.arm))
    try:
        fabric.launch(partial(_told, job=job))  # as an argument, Fabric would take it apart for tensors
    except ProcessException as error:
        if not errors.exists():
            raise TrainingError(
                "a training process died",
                where=job.name,
                found=str(error).strip().splitlines()[-1],
                remedy="look at the memory of the machine; the same command goes on from the last checkpoint",
            ) from error
        told = read_json(errors)
        if "interrupted" in told:
            raise Interrupted(job.name) from error
        raise TrainingError(**told) from error


def _told(fabric: Any, job: ArmJob) -> None:
    """`_train`; where there are several processes, the first user error is left in a file for the parent."""
    try:
        _train(fabric, job)
    except Interrupted:
        if fabric.world_size > 1 and fabric.is_global_zero:
            write_json(job.folder / "error.json", {"interrupted": True})
        raise
    except UserError as error:
        path = job.folder / "error.json"
        if fabric.world_size > 1 and not path.exists():
            shown = {key: getattr(error, key) for key in ("what", "where", "found", "expected")}
            plain = {key: None if value is None else str(value) for key, value in shown.items()}
            write_json(path, {**plain, "remedy": error.remedy, "offenders": [str(item) for item in error.offenders]})
        raise


def _train(fabric: Any, job: ArmJob) -> None:
    settings = job.recipe.training_of(job.arm)
    if fabric.world_size > 1 and fabric.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // fabric.world_size))
    progress = make_progress(job.progress) if fabric.is_global_zero else Progress()
    arms = job.teachers if job.arm == "student" else (job.arm,)
    readers = readers_of([job.recipe.privilege_of(arm) for arm in arms], job.recipe.reports, job.features)
    train = TrainingLoader(
        job.train,
        readers,
        job.recipe.augment,
        settings.batch_size,
        job.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=settings.workers,
        frozen=job.kept,
    )
    validation = EvaluationLoader(job.validation, readers, settings.batch_size, frozen=job.kept_validation)
    task = build_task(job)
    if isinstance(task, Distilled):
        progress.note("\n".join(told(job.recipe, task.lessons)))
    Training(fabric, task, train, validation, settings, job.folder, job.seed, progress, job.name).run()
    if cluster_rank() is None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # a launcher's processes keep theirs for the next arm
