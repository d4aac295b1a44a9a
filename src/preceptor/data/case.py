"""A case, a set of cases, and the manifest (`cases.csv`) in which people read and edit them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test", ""]


@dataclass(frozen=True, slots=True)
class Case:
    """One image or slice, with optional mask, report and patient.

    name: unique in its set. image, mask: absolute paths. slice: index along the last axis where the file is a volume.
    group: what must not be in two splits, usually the patient. report: None where there is none, "" where it is empty.
    """

    name: str
    image: Path
    mask: Path | None = None
    split: Split = ""
    group: str | None = None
    report: str | None = None
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found in a data set. level "error" stops a run; "warning" and "note" are shown.

    code: stable short name (`unpaired-mask`). where: case or file. message: what was found and what to do.
    """

    level: Literal["error", "warning", "note"]
    code: str
    where: str
    message: str


@dataclass(frozen=True)
class CaseSet:
    """The cases of a data set in a deterministic order, and what was found while its layout was read."""

    root: Path
    layout: str
    cases: tuple[Case, ...]
    findings: tuple[Finding, ...] = field(default=())

    def of(self, split: str) -> tuple[Case, ...]:
        """The cases of one split."""
        return tuple(case for case in self.cases if case.split == split)
