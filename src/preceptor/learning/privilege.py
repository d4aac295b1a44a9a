"""Privileged information: what a network is shown while training besides the plain image (Vapnik and Vashist, 2009).

A privilege turns an augmented batch into (image, condition). `none` is all that a student ever gets. Everything else
that the library has to know of a privilege is in its entry of PRIVILEGES, so that a new one is a function and an entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch import Tensor

from preceptor.errors import DataError
from preceptor.learning.class_mean import class_mean

if TYPE_CHECKING:  # a package predicts without anything that reads texts
    from preceptor.data.loading import Batch
    from preceptor.recipe import Recipe
    from preceptor.recipe_data import ReportRecipe

View = tuple[Tensor, Tensor | None]
Need = Literal["report", "mask"]


class Reader(Protocol):
    """Turns texts into a condition; identity: of the encoder or code."""

    identity: str

    @property
    def length(self) -> int: ...

    @property
    def width(self) -> int: ...

    def batch(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, length, width], or [B, width] of attributes."""


def _wrong_attributes(texts: Sequence[str], seed: int) -> Mapping[str, Sequence[str]]:
    from preceptor.text.coding import wrong_attributes

    return wrong_attributes(texts, seed)


def _wrong_reports(reports: Sequence[str], seed: int) -> Mapping[str, Sequence[str]]:
    from preceptor.text.probes import wrong_reports

    return wrong_reports(reports, seed)


@dataclass(frozen=True)
class Reading:
    """A condition that is made of the reports, or of a table beside them (`Case.words`).

    kind: as in `segmentors.base.Condition`, and its key in `Batch.shown`. open: from the recipe's `reports` and the
    run's file of report features (None unless `encoded`) to the reader. planned: (length, width) of the condition
    before anything is embedded. encoded: whether the reports go through the recipe's encoder first. probes: from what
    is read and a seed to wrong texts by the name of the probe, to see whether a network reads them.
    """

    kind: Literal["report", "attributes"]
    open: Callable[["ReportRecipe", Path | None], Reader]
    planned: Callable[["ReportRecipe"], tuple[int, int]]
    encoded: bool = True
    probes: Callable[[Sequence[str], int], Mapping[str, Sequence[str]]] = _wrong_reports


@dataclass(frozen=True)
class Privilege:
    """One privilege.

    view: from a batch to (image, condition). sees: what a network is shown, in words. needs: what every case must have
    beside its image. reading: how a condition is made of the reports; None where there is no condition. caveat: what
    the reader of an arm's scores must know. own_image: the image shown is another than the batch's, so that nothing
    that is known of the batch's holds.
    """

    view: Callable[["Batch"], View]
    sees: str
    needs: tuple[Need, ...] = ()
    reading: Reading | None = None
    caveat: str = ""
    own_image: bool = False


def none(batch: "Batch") -> View:
    """The image [B, C, H, W] alone."""
    return batch.image, None


def report(batch: "Batch") -> View:
    """The image and its report's token features [B, L, D].

    Raises DataError where the batch has no features, so that a privileged network never sees silent zeros.
    """
    if "report" not in batch.shown:
        raise DataError(
            "a network that is shown reports got images without report features",
            where=", ".join(batch.cases[:3]),
            remedy="give the reports with the images, or use the report-free student",
        )
    return batch.image, batch.shown["report"]


def attributes(batch: "Batch") -> View:
    """The image and the coded attributes [B, 8] of its report, NaN where one is unknown.

    Raises DataError where the batch has none, so that a privileged network never takes them for unknown.
    """
    if "attributes" not in batch.shown:
        raise DataError(
            "a network that is shown attributes got images without them",
            where=", ".join(batch.cases[:3]),
            remedy="give the reports or attributes with the images, or use the report-free student",
        )
    return batch.image, batch.shown["attributes"]


def _open_attributes(reports: "ReportRecipe", file: Path | None) -> Reader:
    from preceptor.text.coding import AttributeReader

    return AttributeReader(reports.coding)


def _open_features(reports: "ReportRecipe", file: Path | None) -> Reader:
    if file is None:
        raise DataError("a network that is shown reports needs their features", remedy="`preceptor embed` makes them")
    from preceptor.text.features import ReportFeatures

    return ReportFeatures(file)


PRIVILEGES: dict[str, Privilege] = {
    "none": Privilege(none, "image only"),
    "report": Privilege(
        report,
        "image and report",
        needs=("report",),
        reading=Reading("report", _open_features, lambda reports: (reports.length, reports.width)),
    ),
    "attributes": Privilege(
        attributes,
        "image and coded attributes",
        reading=Reading(
            "attributes", _open_attributes, lambda reports: (1, 8), encoded=False, probes=_wrong_attributes
        ),
    ),
    "class_mean": Privilege(
        class_mean,
        "image and mask",
        needs=("mask",),
        own_image=True,
        caveat="shown each class's mean intensity, painted from the reference: its scores say little",
    ),
}
"""From the name in a recipe to the privilege."""


def needs_reports(recipe: "Recipe") -> bool:
    """Whether any arm is shown something for which every case needs a report."""
    return any("report" in PRIVILEGES[teacher.privilege].needs for teacher in recipe.taught.values())


def encodes_reports(recipe: "Recipe") -> bool:
    """Whether any arm is shown what the recipe's encoder says of a report."""
    readings = (PRIVILEGES[teacher.privilege].reading for teacher in recipe.taught.values())
    return any(reading is not None and reading.encoded for reading in readings)


def reader_of(privilege: str, reports: "ReportRecipe", features: Path | None) -> Reader | None:
    """What turns reports into the privilege's condition; None where there is none. features: see `Reading.open`."""
    reading = PRIVILEGES[privilege].reading
    return None if reading is None else reading.open(reports, features if reading.encoded else None)


def readers_of(privileges: Sequence[str], reports: "ReportRecipe", features: Path | None) -> dict[str, Reader]:
    """The readers that batches need for these privileges, by kind of condition."""
    readings = {reading.kind: reading for name in privileges if (reading := PRIVILEGES[name].reading) is not None}
    return {kind: reading.open(reports, features if reading.encoded else None) for kind, reading in readings.items()}


def reads_attributes(recipe: "Recipe") -> bool:
    """Whether any arm is shown coded attributes."""
    readings = (PRIVILEGES[teacher.privilege].reading for teacher in recipe.taught.values())
    return any(reading is not None and reading.kind == "attributes" for reading in readings)


def condition_of(privilege: str, reader: Reader | None) -> dict[str, Any] | None:
    """The condition of the privilege's networks as plain values (kind, length, width), or None."""
    reading = PRIVILEGES[privilege].reading
    if reading is None:
        return None
    assert reader is not None
    return {"kind": reading.kind, "length": reader.length, "width": reader.width}


def planned_condition(privilege: str, reports: "ReportRecipe") -> dict[str, Any] | None:
    """`condition_of` before anything is embedded, as the recipe plans it."""
    reading = PRIVILEGES[privilege].reading
    if reading is None:
        return None
    length, width = reading.planned(reports)
    return {"kind": reading.kind, "length": length, "width": width}
