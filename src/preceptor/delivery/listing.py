"""Which files are predicted, in what order, and under what relative name their masks go."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.data.pairing import suffix
from preceptor.errors import DataError


@dataclass(frozen=True)
class Source:
    """One image file. relative: its folder as seen from what all given paths have in common."""

    path: Path
    relative: Path


def list_sources(
    paths: Sequence[Path | str], out: Path, unreadable: Callable[[Path, str], None] | None = None
) -> Iterator[Source]:
    """Every image below `paths`: files as given, folders with their subfolders in the order of names.

    In folders, files with other endings, hidden files and the folder `out` are passed over; a file given by name is
    always listed. Lazy: nothing is opened but files without an ending, which scanners write. unreadable: told of
    folders that cannot be listed.
    """
    given = [Path(os.path.abspath(path)) for path in paths]
    if not given:
        return
    try:
        base = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    except ValueError as error:
        raise DataError("the images lie on different drives", remedy="predict each drive by itself") from error
    for path in given:
        if path.is_dir():
            yield from _walk(path, base, Path(os.path.abspath(out)), unreadable)
        else:
            yield Source(path, path.parent.relative_to(base))


def _walk(folder: Path, base: Path, out: Path, unreadable: Callable[[Path, str], None] | None) -> Iterator[Source]:
    def tell(error: OSError) -> None:
        if unreadable is not None:
            unreadable(Path(str(error.filename)), f"the folder cannot be listed: {error.strerror}")

    for name, folders, files in os.walk(folder, onerror=tell):
        here = Path(name)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and here / f != out)
        for file in sorted(files):
            if not file.startswith(".") and (suffix(file) or _is_bare_dicom(here / file)):
                yield Source(here / file, here.relative_to(base))


def _is_bare_dicom(path: Path) -> bool:
    if path.suffix or path.name == "DICOMDIR":
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
