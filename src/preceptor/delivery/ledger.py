"""The books of one prediction: where each file's results go, which are finished, and what became of every image.

`predictions.json` says whose predictions a folder holds, so that masks of two packages never mix; `predictions.csv` has
a row for every image. Both, like every result, are complete or absent.
"""

import contextlib
import csv
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from preceptor import __version__
from preceptor.data.pairing import stem
from preceptor.delivery.listing import Source
from preceptor.delivery.package import Package
from preceptor.delivery.writers import mask_name
from preceptor.errors import DataError, StorageError, UserError
from preceptor.storage import read_json, replacing, write_json

MARK, TABLE = "predictions.json", "predictions.csv"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of a disk on which no further file can be written either."""

_COLUMNS = (
    "image", "status", "mask", "format", "height", "width", "slices", "spacing_row_mm", "spacing_column_mm", "note",
    "message",
)  # fmt: skip


@dataclass(frozen=True)
class PredictionReport:
    """What became of the files. done: masks written. kept: masks that an earlier, equal command had written.

    failed: (image, message) of every file that could not be predicted; `predictions.csv` holds the same.
    """

    done: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Outputs:
    """An image and the files that its prediction becomes; None for those not asked for."""

    image: Path
    mask: Path
    overlay: Path | None
    probabilities: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        """The files that must exist when the image is finished."""
        return tuple(path for path in (self.mask, self.overlay, self.probabilities) if path is not None)


class Ledger(contextlib.AbstractContextManager["Ledger"]):
    """Keeps `report` and the two files while a prediction runs; the table is written however the run ends.

    Raises DataError on entering where `out` holds the predictions of another package and `overwrite` is not set.
    """

    def __init__(
        self,
        out: Path,
        package: Package,
        *,
        overlays: bool,
        probabilities: bool,
        overwrite: bool,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.out, self.package, self.overwrite, self.progress = out, package, overwrite, progress
        self.overlays, self.probabilities = overlays, probabilities
        self.report = PredictionReport()
        self.resuming = False
        self._taken: dict[Path, Path] = {}
        self._before: dict[str, dict[str, str]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Ledger":
        mark = self.out / MARK
        if mark.exists():
            earlier = read_json(mark)
            self.resuming = not self.overwrite and earlier.get("package") == self.package.identity
            if not self.resuming and not self.overwrite:
                raise DataError(
                    "the folder holds the predictions of another package",
                    where=self.out,
                    found=f"weights {str(earlier.get('package'))[:16]}...",
                    expected=f"weights {self.package.identity[:16]}...",
                    remedy="name another folder, or overwrite",
                )
        write_json(mark, {"package": self.package.identity, "preceptor": __version__})
        if self.resuming:
            self._before = _read_table(self.out / TABLE)
        temporary = self._stack.enter_context(replacing(self.out / TABLE))
        # A file name may hold bytes that are no text; the table shows them escaped.
        file = self._stack.enter_context(open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""))
        names = [f"pixels: {name}" for name in self.package.labels]
        self._writer = csv.DictWriter(file, [*_COLUMNS, *names], restval="", extrasaction="ignore")
        self._writer.writeheader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._stack.__exit__(None, None, None)
        else:  # the table of what is finished stays, where the disk still takes it
            with contextlib.suppress(StorageError):
                self._stack.__exit__(None, None, None)

    def plan(self, source: Source) -> Outputs | None:
        """Where the results of an image go; None where they are there already, or cannot go anywhere."""
        name = mask_name(source.path.name)
        outputs = Outputs(
            source.path,
            self.out / source.relative / name,
            self.out / "overlays" / source.relative / f"{stem(name)}.png" if self.overlays else None,
            self.out / "probabilities" / source.relative / _probability_name(name) if self.probabilities else None,
        )
        trouble = self._trouble(outputs)
        if trouble is not None:
            self.fail(source.path, trouble)
            return None
        self._taken.update(dict.fromkeys(outputs.all, source.path))
        if self.resuming and all(_is_newer(path, source.path) for path in outputs.all):
            self._keep(outputs)
            return None
        return outputs

    def _trouble(self, outputs: Outputs) -> UserError | None:
        image, mask = outputs.image, outputs.mask
        if os.path.abspath(mask.parent) == os.path.abspath(image.parent):
            return DataError("the mask would lie among the images", where=image, remedy="name another output folder")
        twin = next((self._taken[path] for path in outputs.all if path in self._taken), None)
        if twin is not None:
            remedy = "rename one, or predict them into two folders"
            return DataError(
                "its results would have the names of another image's", where=image, found=twin, remedy=remedy
            )
        if mask.exists() and not self.overwrite and not self.resuming:
            what, remedy = "a file of the mask's name exists already", "name another output folder, or overwrite"
            return DataError(what, where=image, found=mask, remedy=remedy)
        return None

    @contextlib.contextmanager
    def failing(self, image: Path) -> Iterator[None]:
        """Errors of this image are booked, and the next image goes on; a full disk and defects of ours are raised."""
        try:
            yield
        except MemoryError:
            self.fail(image, DataError("there is not enough memory for this image", where=image, remedy="cut tiles"))
        except UserError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
                raise
            self.fail(image, error)

    def finish(self, outputs: Outputs, row: Mapping[str, Any]) -> None:
        """An image's results are all written."""
        self.report.done.append(outputs.mask)
        self._writer.writerow({"image": outputs.image, "status": "done", "mask": outputs.mask, **row})
        self.progress()

    def fail(self, image: Path, error: UserError) -> None:
        """An image could not be predicted."""
        message = str(error).removeprefix(f"{error.where}: ")
        self.report.failed.append((image, message))
        self._writer.writerow({"image": image, "status": "failed", "message": message})
        self.progress()

    def fail_folder(self, folder: Path, message: str) -> None:
        """A folder could not be listed."""
        self.report.failed.append((folder, message))
        self._writer.writerow({"image": folder, "status": "failed", "message": message})

    def _keep(self, outputs: Outputs) -> None:
        self.report.kept.append(outputs.mask)
        earlier = self._before.get(str(outputs.image), {})
        self._writer.writerow({**earlier, "image": outputs.image, "status": "kept", "mask": outputs.mask})
        self.progress()


def _probability_name(mask: str) -> str:
    return mask if mask.lower().endswith((".nii", ".nii.gz")) else f"{stem(mask)}.npy"


def _is_newer(result: Path, image: Path) -> bool:
    """Whether a result exists that is no older than its image."""
    try:
        return result.stat().st_mtime >= image.stat().st_mtime
    except OSError:
        return False


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {row["image"]: row for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, csv.Error):
        return {}
