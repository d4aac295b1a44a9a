"""The recipe: a typed, strict description of one experiment, read from and written to YAML.

Unknown keys, wrong types, repeated keys and YAML aliases are refused, each with the nearest valid key. A recipe may
extend others; `--set a.b=value` changes single fields. Names (segmentors, distillers, encoders) resolve through the
dictionaries of this library only, never through import paths.
"""

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from preceptor import plainyaml
from preceptor.errors import RecipeError
from preceptor.recipe_data import (
    AugmentRecipe,
    CacheRecipe,
    DataRecipe,
    NonNegative,
    Part,
    PositiveInt,
    ReportRecipe,
    Share,
)
from preceptor.recipe_evaluate import EvaluateRecipe
from preceptor.recipe_faults import FieldsOf, explain

WHOLE = ("labels", "classes", "taps", "named")
"""Dictionaries that a recipe which extends another gives anew."""


class SegmentorRecipe(Part):
    """A network by name. size: the dial. options: the constructor's further keyword arguments.

    pretrained: Hugging Face id or local folder of image-encoder weights; None trains from scratch.
    """

    name: str
    size: Literal["tiny", "small", "base"] = "base"
    pretrained: str | None = None
    options: dict[str, Any] = Field(default={})


class TrainingRecipe(Part):
    """Optimisation of one arm, with early stopping on validation Dice.

    optimizer: "adamw", "adam" (weight decay as a penalty), or "sgd" with Nesterov-free `momentum`. schedule, from `lr`
    to `min_lr` over `epochs`: "cosine" (stepped once an epoch), "poly" (power 0.9, at every step) or "constant";
    "restarts" is a cosine over `restart_epochs`, again and again; "step" multiplies `lr` by `factor` at each of the
    epochs `milestones`, whatever `min_lr`.
    loss_weights: of the loss on the logits, then on the logits of each side head, in the segmentor's order.
    own_loss_weight: of the losses that a segmentor brings along, such as C2FVL's alignment.
    batch_size: cases an optimiser step and device, before accumulation. patience: epochs without a better validation
    Dice (0: never stop early). schedule_epochs: length of the schedule where it is not `epochs`. clip: largest gradient
    norm (0: none). precision "auto": bf16 where there is hardware for it.
    checkpoint_minutes: at most this much work is lost when a run is killed (0: at every step).
    """

    epochs: PositiveInt = 100
    min_epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    accumulate: PositiveInt = 1
    lr: Annotated[float, Field(gt=0)] = 3e-4
    min_lr: NonNegative = 1e-6
    warmup_epochs: NonNegative = 0.0
    schedule_epochs: PositiveInt | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: Share = 0.9
    schedule: Literal["cosine", "restarts", "poly", "step", "constant"] = "cosine"
    restart_epochs: PositiveInt = 10
    milestones: list[PositiveInt] = Field(default=[])
    factor: Share = 0.5
    weight_decay: NonNegative = 0.01
    patience: Annotated[int, Field(ge=0)] = 20
    clip: NonNegative = 1.0
    loss: Literal[
        "dice_ce",
        "dice",
        "ce",
        "languide_dice",
        "foreground_dice_ce",
        "flat_dice_ce",
        "transunet",
        "missformer",
        "c2fvl",
        "textdiff",
        "textdiff_softmax",
    ] = "dice_ce"
    loss_weights: list[NonNegative] = Field(default=[1.0], min_length=1)
    own_loss_weight: NonNegative = 1.0
    monitor: Literal["dice_pooled", "dice_image_mean", "dice_batch_mean"] = "dice_pooled"
    precision: Literal["auto", "bf16", "float32"] = "auto"
    channels_last: bool = True
    workers: Annotated[int, Field(ge=0)] = 0
    accelerator: str = "auto"
    devices: int | str = 1
    nodes: PositiveInt = 1
    strategy: str = "auto"
    validate_every: PositiveInt = 1
    checkpoint_minutes: NonNegative = 5.0
    bad_steps: PositiveInt = 10


class TeacherRecipe(Part):
    """The teacher arm: trained here, or taken `source` (a run folder or a package) as it is.

    mode: "eval" (truly frozen) or "train" (TextFreeKD as released: batch statistics in the teacher's forward pass).
    training: fields that differ from the recipe's `training`.
    """

    segmentor: SegmentorRecipe
    privilege: Literal["none", "report", "attributes", "class_mean"] = "none"
    source: str | None = None
    mode: Literal["eval", "train"] = "eval"
    training: Annotated[dict[str, Any], FieldsOf(TrainingRecipe)] = Field(default={})

    @field_validator("training")
    @classmethod
    def _training_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        TrainingRecipe.model_validate(value)
        return value


class ControlRecipe(Part):
    """The control arm, where it is not trained here: `source` is a run folder that holds one of the same recipe."""

    source: str | None = None


class DistillRecipe(Part):
    """One distiller by name, its weight, the pairs of taps (student tap to teacher tap; None: see `pair_taps`).

    teacher: which of several `teachers`. preset: published settings by name, under the `options`. warmup: share of the
    training over which the weight climbs from 0; decay: share at its end over which the weight falls to `final`.
    """

    name: str
    teacher: str | None = None
    weight: NonNegative = 1.0
    warmup: Share = 0.0
    decay: Share = 0.0
    final: NonNegative = 0.0
    preset: str | None = None
    taps: dict[str, str] | None = None
    options: dict[str, Any] = Field(default={})


class Recipe(Part):
    """One experiment: data, reports, teacher, student, distillers, training, judging, seeds."""

    name: str
    description: str = ""
    extends: str | None = None
    data: DataRecipe = DataRecipe()
    reports: ReportRecipe = ReportRecipe()
    teacher: TeacherRecipe | None = None
    teachers: dict[str, TeacherRecipe] = Field(default={})
    control: ControlRecipe = ControlRecipe()
    student: SegmentorRecipe
    distill: list[DistillRecipe] = Field(default=[])
    augment: AugmentRecipe = AugmentRecipe()
    cache: CacheRecipe = CacheRecipe()
    training: TrainingRecipe = TrainingRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()
    seeds: list[int] = Field(default=[0], min_length=1)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"\w[\w .+-]*", value):
            raise ValueError(f"a name becomes a folder: letters, digits, space and . + - _ only; found {value!r}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once")
        if self.teacher is not None and self.teachers:
            raise ValueError("teachers: give one `teacher` or several `teachers`, not both")
        bad = [name for name in self.teachers if not re.fullmatch(r"\w+", name)]
        if bad:
            raise ValueError(f"teachers: a name is letters, digits and _ only; found {', '.join(bad)}")
        if self.distill and not self.taught:
            raise ValueError("distill: a distiller needs a teacher; add a `teacher` section or remove `distill`")
        for index, part in enumerate(self.distill):
            if part.teacher is None and len(self.teachers) > 1:
                raise ValueError(f"distill.{index}.teacher: say which of the teachers: {', '.join(self.teachers)}")
            if part.teacher is not None and part.teacher not in self.teachers:
                known = ", ".join(self.teachers) or "none, since there is one `teacher`: leave the key out"
                raise ValueError(f"distill.{index}.teacher: there is no teacher {part.teacher!r}; known are {known}")
        for name, other in self.evaluate.elsewhere.items():
            faults = other.class_faults(self.data.labels)
            if faults:
                raise ValueError(f"evaluate.elsewhere.{name}.classes: {'; '.join(faults)}")
        return self

    @property
    def taught(self) -> dict[str, TeacherRecipe]:
        """The teachers by the names of their arms: `teacher`, or `teacher-NAME` for each of several."""
        if self.teacher is not None:
            return {"teacher": self.teacher}
        return {f"teacher-{name}": teacher for name, teacher in self.teachers.items()}

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that the recipe asks for: its teachers, the control, and the student if anything is distilled."""
        return (*self.taught, "control", *(["student"] if self.distill else []))

    def teacher_of(self, part: DistillRecipe) -> str:
        """The arm of the teacher that a distiller learns from."""
        return f"teacher-{part.teacher}" if part.teacher else next(iter(self.taught))

    def segmentor_of(self, arm: str) -> SegmentorRecipe:
        """The network of one arm; control and student always share theirs."""
        return self.taught[arm].segmentor if arm in self.taught else self.student

    def privilege_of(self, arm: str) -> str:
        """What an arm is shown besides the image."""
        return self.taught[arm].privilege if arm in self.taught else "none"

    def training_of(self, arm: str) -> TrainingRecipe:
        """The training settings of one arm; control and student always share theirs."""
        changes = self.taught[arm].training if arm in self.taught else {}
        if not changes:
            return self.training
        return TrainingRecipe.model_validate({**self.training.model_dump(), **changes})

    def plain(self) -> dict[str, Any]:
        """The recipe as plain dictionaries and lists, every default filled in."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved recipe as YAML; reading it back gives an equal recipe."""
        return plainyaml.render(self.plain())


def shipped_recipes() -> dict[str, Path]:
    """Name (`textfreekd/monuseg`) to file of every recipe that comes with the library."""
    return {name: file for name, file in shipped(".yaml").items() if "." not in name}


def shipped(suffix: str) -> dict[str, Path]:
    """Name to file of what comes with the library in the folder of recipes and ends with `suffix`."""
    here = Path(__file__).resolve().parent
    folder = next((f for f in (here / "recipes", here.parent.parent / "recipes") if f.is_dir()), None)
    if folder is None:
        return {}
    files = sorted(folder.rglob(f"*{suffix}"))
    return {file.relative_to(folder).as_posix().removesuffix(suffix): file for file in files}


def read_recipe(source: str | Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe by file or shipped name, follow `extends`, apply `a.b=value` changes, and validate it.

    Raises RecipeError with every fault at once.
    """
    return validate_recipe(_resolve(source, ()), where=source, changes=changes)


def validate_recipe(content: Mapping[str, Any], where: object = "recipe", changes: Iterable[str] = ()) -> Recipe:
    """A Recipe from plain dictionaries, with `a.b=value` changes.

    Raises RecipeError that lists every fault with the nearest valid key.
    """
    changed = apply_changes(content, changes)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        faults = explain(error, Recipe)
        remedy = "mend these keys; `preceptor show RECIPE` prints a shipped recipe with every valid key"
        raise RecipeError("the recipe is not valid", where=where, offenders=faults, remedy=remedy) from error


def _resolve(source: str | Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(source, seen[-1].parent if seen else None)
    if path in seen:
        raise RecipeError("recipes extend each other in a circle", where=path, offenders=[str(p) for p in seen])
    return _inherited(read_yaml(path), (*seen, path))


def inherited(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """`content`, found in `file`, laid over the recipe that it `extends`, if it does."""
    return _inherited(dict(content), (file.resolve(),))


def _inherited(content: dict[str, Any], seen: tuple[Path, ...]) -> dict[str, Any]:
    parent = content.pop("extends", None)
    return content if parent is None else merge(_resolve(str(parent), seen), content)


def _find(source: str | Path, beside: Path | None) -> Path:
    shipped = shipped_recipes()
    candidates = [Path(source)] if beside is None else [beside / source, beside / f"{source}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    name = str(source).removeprefix("recipes/").removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.4)
    raise RecipeError(
        "there is no such recipe file and no shipped recipe of that name",
        where=source,
        remedy=f"did you mean {', '.join(near)}?" if near else "`preceptor list` names the shipped recipes",
    )


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it; dictionaries merge key by key, everything else is replaced.

    `labels`, `classes`, `taps` and `named` are replaced as wholes: those of another data set or network make no
    sense beside.
    """
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and key not in WHOLE
        result[key] = merge(result[key], value) if both else value
    return result


def apply_changes(content: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A copy of nested dictionaries with `a.b=value` changes. Raises RecipeError for keys that lead nowhere."""
    changed = copy.deepcopy(dict(content))
    for change in changes:
        _apply_change(changed, change)
    return changed


def _apply_change(content: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key:
        raise RecipeError("a change is not of the form key=value", where=f"--set {change}", expected="--set a.b=value")
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, list):
            place = place[_index(place, parent, key)]
        else:
            if not isinstance(place.get(parent), dict | list):
                place[parent] = {}
            place = place[parent]
        if not isinstance(place, dict | list):
            raise RecipeError("this is a single value, without fields", where=f"--set {change}", found=repr(place))
    value = _parse(text, f"--set {change}")
    if isinstance(place, list):
        place[_index(place, last, key)] = value
    else:
        place[last] = value


def _index(place: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        expected = f"0..{len(place) - 1}" if place else "the list is empty: set it as a whole, as in key=[a, b]"
        raise RecipeError("no such item in the list", where=f"--set {key}", found=part, expected=expected)
    return int(part)


def _parse(text: str, where: object) -> Any:
    try:
        return plainyaml.parse(text)
    except ValueError as error:
        raise RecipeError("this is not valid YAML", where=where, found=str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The dictionary in a YAML file. Raises RecipeError for anything else."""
    try:
        content = _parse(path.read_text(encoding="utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("the recipe cannot be read", where=path, found=str(error)) from error
    if not isinstance(content, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=path, found=type(content).__name__)
    return content
