"""Which file belongs to which name: the pairing rule of the text-annotated data sets.

Source: specification of text-annotated data sets, sections 1 and 2. A table or folder of masks names a case by
`mask_covid_1.png`, `covid_1.png`, `Images\\covid_1.png` or `covid_1`; the files are `covid_1.png` or `covid_1.tif`.
"""

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

PREFIX = "mask_"

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
    *(".nii.gz", ".nii", ".dcm", ".dicom", ".h5", ".hdf5", ".npz"),
)
"""Endings of files that can be read, in the order in which a name without its own ending is looked up."""


def file_name(text: str) -> str:
    """The name without its folders, which may be separated by / or \\."""
    return PurePosixPath(text.strip().replace("\\", "/")).name


def stem(name: str) -> str:
    """The name without the ending of a readable file (`.nii.gz` is one ending); other dots stay."""
    ending = suffix(name)
    return name[: len(name) - len(ending)] if ending else name


def suffix(name: str) -> str:
    """The ending of a readable file as it is written in `name`, or ""."""
    lower = name.lower()
    found = max((ending for ending in SUFFIXES if lower.endswith(ending)), key=len, default="")
    return name[len(name) - len(found) :] if found else ""


def pair(keys: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Key to name, each name used at most once. Keys without a partner are left out.

    Three passes over all keys, so that a loose match never takes what another key names exactly: the exact name; the
    name without or with `mask_` (every occurrence is removed, as published); the same stem, plain or without or with
    `mask_`, under any other readable ending.
    """
    free = dict.fromkeys(names)
    endings: dict[str, list[str]] = {}
    for name in sorted(free, key=_by_ending):
        endings.setdefault(stem(name), []).append(name)
    passes: tuple[Callable[[str], list[str]], ...] = (
        lambda key: [key],
        _without_or_with_prefix,
        lambda key: [name for form in (key, *_without_or_with_prefix(key)) for name in endings.get(stem(form), ())],
    )
    result: dict[str, str] = {}
    todo = list(dict.fromkeys(keys))
    for candidates in passes:
        left = []
        for key in todo:
            found = next((name for name in candidates(file_name(key)) if name in free), None)
            if found is None:
                left.append(key)
            else:
                result[key] = found
                del free[found]
        todo = left
    return result


def _without_or_with_prefix(name: str) -> list[str]:
    bare = name.replace(PREFIX, "")
    return [bare, PREFIX + name] if bare and bare != name else [PREFIX + name]


def _by_ending(name: str) -> tuple[int, str]:
    ending = suffix(name).lower()
    return (SUFFIXES.index(ending) if ending else len(SUFFIXES), name)
