"""The settings of a diffusion U-Net's own pre-training: typed, strict, and YAML like a recipe."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from preceptor import plainyaml
from preceptor.errors import RecipeError
from preceptor.recipe import apply_changes, read_recipe, read_yaml, shipped, shipped_recipes
from preceptor.recipe_data import DataRecipe, NonNegative, Part, Pattern, PositiveInt, Share, SplitRecipe
from preceptor.recipe_faults import explain

LAYOUTS = get_args(DataRecipe.model_fields["layout"].annotation)

SUFFIX = ".diffusion.yaml"
"""How the names of shipped settings end, so that they are not taken for recipes."""


class PictureRecipe(Part):
    """Which pictures are learned from, and how each becomes values in [-1, 1], as `data.normalize: symmetric` does.

    root: a folder of pictures, taken with its subfolders, or a data set in a `layout`, of which train is learned from,
    val judged on and test left alone. split: as in a recipe; of a folder of pictures, `validation` is held out.
    clip, resize, antialias, channels, group_pattern, drop_unpaired: as in a recipe's `data`.
    """

    root: str = ""
    layout: str = "auto"
    channels: Literal[1, 3] = 3
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    clip: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    split: SplitRecipe = SplitRecipe(validation=0.1)
    group_pattern: Pattern | None = None
    drop_unpaired: bool = False
    licence: str = ""
    source: str = ""

    @field_validator("layout")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in LAYOUTS:
            raise ValueError(f"there is no layout {value!r}; known are {', '.join(LAYOUTS)}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "PictureRecipe":
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError("clip is [low, high] with low below high")
        return self

    @property
    def section(self) -> DataRecipe:
        """The same as a recipe's `data`."""
        return DataRecipe(**self.model_dump(), normalize="symmetric", missing_text="empty")


class DiffusionRecipe(Part):
    """Pre-training of an unconditional diffusion U-Net that predicts the noise (DDPM, Ho 2020, arXiv 2006.11239).

    shape: of `segmentors.diffusion.SHAPES`; image_size, widths, layers, attention, head_width and groups change single
    dimensions of it, see `DiffusionShape`. framing: "crop" takes random squares of `image_size` pixels, "whole" resizes
    the picture to one. scale: pixels of a picture's shortest side before it is cropped (None: as stored); TextDiff is
    to see structures as large as here. flip_horizontal, flip_vertical: probabilities; turns: random quarter turns.
    steps: of the optimiser, Adam at `lr` after a linear climb over `warmup_steps`; it stays there, so that more steps
    can be added to a finished training. ema: decay of the weights' moving average, which is what is written; it grows
    from 0 over the first steps. clip: largest gradient norm (0: none).
    Every `validate_every` steps the noise of `validation_crops` fixed crops at fixed timesteps is predicted, of the
    held-out pictures and of as many that are learned from; a gap between the two that grows is over-fitting.
    samples: pictures of a grid drawn every `sample_every` steps (0: never) by DDIM in `sample_steps`.
    precision "auto": bf16 where there is hardware for it.
    """

    description: str = ""
    data: PictureRecipe = PictureRecipe()
    shape: Literal["tiny", "small", "imagenet256"] = "small"
    image_size: PositiveInt | None = None
    widths: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    layers: PositiveInt | None = None
    attention: list[Annotated[int, Field(ge=0)]] | None = None
    head_width: PositiveInt | None = None
    groups: PositiveInt | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    framing: Literal["crop", "whole"] = "crop"
    scale: PositiveInt | None = None
    flip_horizontal: Share = 0.5
    flip_vertical: Share = 0.0
    turns: bool = False
    steps: PositiveInt = 20_000
    batch_size: PositiveInt = 16
    lr: Annotated[float, Field(gt=0)] = 2e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: NonNegative = 1.0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    channels_last: bool = True
    seed: int = 0
    validate_every: PositiveInt = 500
    validation_crops: PositiveInt = 64
    sample_every: Annotated[int, Field(ge=0)] = 1000
    samples: PositiveInt = 16
    sample_steps: Annotated[int, Field(gt=0, le=1000)] = 50
    checkpoint_minutes: NonNegative = 5.0
    bad_steps: PositiveInt = 10

    def plain(self) -> dict[str, Any]:
        """The settings as plain dictionaries and lists, every default filled in."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The settings as YAML; reading it back gives equal ones."""
        return plainyaml.render(self.plain())


def shipped_pretrainings() -> dict[str, Path]:
    """Name (`textdiff/monuseg`) to file of all settings that come with the library."""
    return shipped(SUFFIX)


def read_diffusion_recipe(source: str | Path, changes: Iterable[str] = ()) -> DiffusionRecipe:
    """The settings for a folder of pictures or a data set, a file of settings, or the `data` of a recipe.

    Shipped settings go before a shipped recipe of their name. Of a recipe come its pictures, their channels, and the
    size that it shows its networks as `scale`. changes: `key=value`. Raises RecipeError with every fault at once.
    """
    content = apply_changes(_content(source), changes)
    try:
        return DiffusionRecipe.model_validate(content)
    except ValidationError as error:
        faults = explain(error, DiffusionRecipe)
        raise RecipeError("the settings of the pre-training are not valid", where=source, offenders=faults) from error


def _content(source: str | Path) -> dict[str, Any]:
    if Path(source).is_dir():
        return {"data": {"root": str(source)}}
    name = str(source).removeprefix("recipes/").removesuffix(".yaml")
    path = Path(source) if Path(source).is_file() else shipped_pretrainings().get(name)
    if path is not None:
        content = read_yaml(path)
        if not {"extends", "student", "teacher", "teachers"} & set(content):
            return content
    elif name not in shipped_recipes():
        raise RecipeError(
            "this is neither a folder of pictures, nor a file of settings, nor a recipe",
            where=source,
            remedy="check the path; `preceptor list recipes` and `preceptor list pretrainings` name what is shipped",
        )
    data = read_recipe(source).data
    shared = data.model_dump(include=set(PictureRecipe.model_fields), exclude={"channels"})
    return {"data": {**shared, "channels": 1 if data.channels == 1 else 3}, "scale": min(data.size)}
