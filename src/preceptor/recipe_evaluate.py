"""The part of a recipe that says how arms are judged: settings, and other data sets on which they are judged as well.

Cross-dataset evaluation: train and select on one source, apply unchanged to another, with the class names of the two
put side by side (specification of SIKD, section 8).
"""

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from preceptor.recipe_data import (
    DataRecipe,
    FilesRecipe,
    NonNegative,
    Normalisation,
    Part,
    PositiveInt,
    SplitRecipe,
)


class OtherDataRecipe(FilesRecipe):
    """Another data set: its files and its own labels as in `data`, and how its classes and values meet the networks'.

    classes: a class of this set to the class of the recipe, or the list of them, that counts as it; left out, that of
    the same name. [] says that none does: the class is not judged. What a network predicts of a class that counts as
    none is background here; classes of the recipe that this set does not label are not judged.
    normalize, clip: left out, those of `data`; where normalize is given, clip is this set's own.
    splits: the cases that are judged, in the splits that `split` makes; left out, all cases.
    unit: what one score is of; left out, slices where `evaluate.unit` says so, else as "auto".
    """

    classes: dict[str, str | list[str]] = Field(default={})
    normalize: Normalisation | None = None
    splits: list[Literal["train", "val", "test"]] | None = None
    unit: Literal["auto", "slice", "volume"] | None = None

    def class_map(self, classes: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Each foreground class of this set with those of the recipe's `classes` that count as it."""
        return {name: self._counting(name) for name in list(self.labels)[1:] if set(self._counting(name)) & {*classes}}

    def class_faults(self, classes: Sequence[str] | Collection[str]) -> list[str]:
        """What is wrong with `classes`, beside those of the recipe (the background first); [] before either is known.

        One line a fault: a class that neither set has, one that nothing is said of, one that counts twice.
        """
        if len(self.labels) < 2 or len(classes) < 2:
            return []
        known, own = list(classes)[1:], list(self.labels)[1:]
        faults = [
            f"{name!r} is no class of this data set, which has {', '.join(own)}"
            for name in self.classes
            if name not in own
        ]
        met: dict[str, str] = {}
        for name in own:
            for counting in self._counting(name):
                if counting not in known:
                    given = name in self.classes
                    faults.append(
                        f"{counting!r} is no class of the recipe, which has {', '.join(known)}"
                        + ("" if given else f"; say which of them count as {name}, or [] for none")
                    )
                elif counting in met:
                    faults.append(f"{counting!r} counts as {met[counting]} and as {name}; expected one of them")
                else:
                    met[counting] = name
        if not met and not faults:
            faults.append("no class of the recipe counts as one of this data set, so that nothing can be judged")
        return faults

    def _counting(self, name: str) -> tuple[str, ...]:
        given = self.classes.get(name, name)
        return (given,) if isinstance(given, str) else tuple(given)

    def as_data(self, home: DataRecipe) -> DataRecipe:
        """The data section with which this set is read: its own files and labels, the networks' input of `home`.

        The split is that of a set without training: every case is judged.
        """
        own = {name: getattr(self, name) for name in FilesRecipe.model_fields}
        own |= {"split": SplitRecipe(rule="given", validation=0.0, groups=self.split.groups), "phantoms": None}
        if self.normalize is not None:
            own["normalize"] = self.normalize
        elif self.clip is None:
            own["clip"] = home.clip
        return home.model_copy(update=own)


class EvaluateRecipe(Part):
    """Judging. tolerance: of the surface Dice, in mm (pixels where no spacing is known). bootstrap: resamples.

    unit: what one score is of; "auto" takes whole volumes where cases are slices of volumes.
    margin: a teacher whose Dice falls by less than this with wrong reports is called text-blind.
    elsewhere: other data sets by name, on which every arm is judged as it is.
    """

    splits: list[Literal["train", "val", "test"]] = Field(default=["test"])
    tolerance: NonNegative = 2.0
    bootstrap: PositiveInt = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    probes: bool = True
    margin: NonNegative = 0.01
    unit: Literal["auto", "slice", "volume"] = "auto"
    elsewhere: dict[str, OtherDataRecipe] = Field(default={})

    @field_validator("elsewhere")
    @classmethod
    def _names_folders(cls, value: dict[str, OtherDataRecipe]) -> dict[str, OtherDataRecipe]:
        bad = [name for name in value if not re.fullmatch(r"\w[\w+-]*", name)]
        if bad:
            raise ValueError(f"a name becomes a folder: letters, digits and _ + - only; found {', '.join(bad)}")
        return value
