"""The parts of a recipe that describe data: files, splits, reports and augmentation."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

IGNORED = 255
"""The class index of pixels that take no part: those of the values of `data.ignore`."""

Normalisation = Literal["zscore", "unit", "symmetric", "none", "volume_minmax", "volume_zscore", "volume_percentile"]


Clip = Annotated[list[float], Field(min_length=2, max_length=2)]


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if groups > 1:
        raise ValueError(f"{text!r} has {groups} groups in brackets, expected one, or none for all that fits: (?:...)")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression; what its one pair of brackets, or without brackets the whole of it, finds in a name."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SplitRecipe(Part):
    """How cases are divided. "given": by the layout's folders or the manifest; validation is cut from train if missing.

    rule "random": grouped and seeded; "tail": the first int((1 - validation) * n) rows of train stay (published rule).
    groups "required" stops where no patient is known; "waived" says that every case is its own group.
    named, for the rule "named": the groups (patients), volumes or cases of a split, as published lists give them. All
    others train; where `train` is named as well, they take no part.
    """

    rule: Literal["given", "random", "tail", "named"] = "given"
    validation: Share = 0.2
    test: Share = 0.2
    named: dict[Literal["train", "val", "test"], list[str]] = {}
    seed: int = 0
    groups: Literal["auto", "required", "waived"] = "auto"

    @model_validator(mode="after")
    def _named_once(self) -> "SplitRecipe":
        if self.rule == "named" and not self.named:
            raise ValueError("rule: named needs `named`, lists of groups, volumes or cases for val and test")
        every = [name for names in self.named.values() for name in names]
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ValueError(f"named: in several places: {', '.join(twice[:20])}")
        return self


class PhantomRecipe(Part):
    """Generated chest films, written to `data.root` when it does not exist yet."""

    cases: PositiveInt = 240
    size: PositiveInt = 128
    seed: int = 0


class FilesRecipe(Part):
    """Where the cases of a data set are, and what its masks and file names mean.

    labels: class name to stored mask value (a list of values, or a colour "#rrggbb"); the first is the background.
    mask_rule: "exact" (every stored value is declared), "threshold" (binary: above half of the largest),
    "eq255" (TextFreeKD), "bilinear_gt0" (LViT, C2FVL). ignore: stored mask values whose pixels take no part in
    training, validation and scores; under "exact" only. group_pattern: regular expression that finds the patient in the
    name of a case, such as "^(.+)-IM"; it goes before groups.csv. missing_text: "empty" lets a case without report take
    part with an empty one.
    """

    root: str = ""
    layout: Literal[
        "auto",
        "lvit",
        "textfreekd",
        "folders",
        "manifest",
        "ssl4mis",
        "transunet",
        "acdc",
        "nnunet",
        "volumes",
    ] = "auto"
    labels: dict[str, int | str | list[int]] = {}
    mask_rule: Literal["exact", "threshold", "eq255", "bilinear_gt0"] = "exact"
    ignore: list[int] = []
    split: SplitRecipe = SplitRecipe()
    group_pattern: Pattern | None = None
    missing_text: Literal["error", "empty"] = "error"
    drop_unpaired: bool = False
    clip: Clip | None = None
    licence: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _fit(self) -> "FilesRecipe":
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError("clip is [low, high] with low below high")
        if self.ignore and self.mask_rule != "exact":
            raise ValueError(f"ignore needs mask_rule: exact; {self.mask_rule} makes a class of every value")
        return self


class DataRecipe(FilesRecipe):
    """The data set of a recipe, and how an image becomes an array.

    image_size: the network's input, height and width in pixels.
    clip: [low, high] in stored values, as Hounsfield units, before all else. normalize: "zscore" (per image and
    channel), "unit" (the range of the clip or of the type to 0..1), "symmetric" (0..1, or that range, to -1..1), "none"
    (values as stored), or by the whole volume: "volume_minmax" (0..1), "volume_zscore", "volume_percentile" (2 to 98 %
    to 0..1).
    antialias: when an image is reduced.
    """

    image_size: PositiveInt | list[PositiveInt] = 224
    channels: PositiveInt = 3
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    normalize: Normalisation = "zscore"
    phantoms: PhantomRecipe | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width

    @model_validator(mode="after")
    def _pairs(self) -> "DataRecipe":
        if isinstance(self.image_size, list) and len(self.image_size) != 2:
            raise ValueError("image_size is one number or [height, width]")
        return self


class ReportRecipe(Part):
    """How reports become token features, and attributes. encoder: "hashed", a Hugging Face id, or a local folder.

    length: tokens kept, with special tokens. width: of the hashed encoder's vectors; other encoders have their own.
    features: a file that `preceptor embed` made, perhaps on a machine with a network; the encoder is then not needed.
    coding: how attributes are read from a report: "sentence" of the published lung sets, or "notes", free text.
    attributes: one or more tables that give them instead, beside the data's root or wherever the path leads.
    """

    encoder: str = "hashed"
    revision: str | None = None
    length: PositiveInt = 24
    width: PositiveInt = 128
    features: str | None = None
    coding: Literal["sentence", "notes"] = "sentence"
    attributes: str | list[str] | None = None


class AugmentRecipe(Part):
    """Random changes of a training case, drawn from (seed, epoch, case) alone, with one resampling in all.

    zoom: [probability, low, high], the same factor for both axes. rotate: degrees, scale: share, shift: share of the
    side, each drawn uniformly in +-. flips and transpose: probabilities. brightness, contrast: +- shares; gamma: +- in
    the exponent; noise: standard deviation; all in units of the normalised image.
    rot_flip: probability of a random quarter turn and a random flip, which excludes the rotation; else that happens
    with the probability rotate_share. TransUNet's augmentation is rot_flip 0.5, rotate 20, rotate_share 0.5.
    reports: "rewrite" swaps side words of a flipped case's report, "forbid" never flips a case whose report has some.
    variants: how many fixed versions of a case there are, shown in turn, of which frozen features can be kept; 0: a new
    one in every epoch.
    """

    zoom: list[float] = Field(default=[0.1, 0.95, 1.2], min_length=3, max_length=3)
    rotate: NonNegative = 0.0
    rotate_share: Share = 1.0
    rot_flip: Share = 0.0
    scale: NonNegative = 0.0
    shift: NonNegative = 0.0
    flip_horizontal: Share = 0.0
    flip_vertical: Share = 0.0
    transpose: Share = 0.0
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    gamma: NonNegative = 0.0
    noise: NonNegative = 0.0
    reports: Literal["rewrite", "forbid"] = "rewrite"
    variants: Annotated[int, Field(ge=0)] = 0


class CacheRecipe(Part):
    """Frozen features kept on disk, for networks with a part that never learns.

    enabled: "auto" keeps what it can within the limit, true refuses a run that cannot, false never keeps any. Training
    cases need a finite augmentation, see `augment.variants`. limit_gb: of what one arm needs, in 10^9 bytes. folder:
    "cache" beside the run folders where it is left out.
    """

    enabled: bool | Literal["auto"] = "auto"
    limit_gb: NonNegative = 20.0
    folder: str | None = None
