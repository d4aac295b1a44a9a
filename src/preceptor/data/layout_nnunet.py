"""The raw data layout of nnU-Net, version 2.

    dataset.json         channel_names, labels (name to value), file_ending; numTraining is not needed
    imagesTr, labelsTr   <case>_0000<file_ending>, <case><file_ending>
    imagesTs, labelsTs   likewise, for testing; optional
    splits_final.json    optional: a list of folds, each with names of `train` and `val` cases; the first is taken

Source: nnU-Net's documentation of its dataset format and of manual splits (F. Isensee et al., Nature Methods 18, 2021).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preceptor.data.case import Case, Finding, Split
from preceptor.data.check_findings import finding
from preceptor.data.pairing import SUFFIXES
from preceptor.data.volume_cases import expand_volumes
from preceptor.errors import DataError, StorageError
from preceptor.recipe_data import DataRecipe
from preceptor.storage import read_json

DATASET, SPLITS = "dataset.json", "splits_final.json"

_FOLDERS: tuple[tuple[str, Split], ...] = (("Tr", "train"), ("Ts", "test"))


def holds_nnunet(root: Path) -> bool:
    """Whether dataset.json lies beside imagesTr or imagesTs."""
    return (root / DATASET).is_file() and any((root / f"images{which}").is_dir() for which, _ in _FOLDERS)


def nnunet_labels(root: Path) -> dict[str, int | list[int]]:
    """Class name to value, or list of values, as dataset.json declares it, the background first.

    Raises DataError for overlapping regions, for a label to be ignored, and for names and values of version 1.
    """
    path = root / DATASET
    declared = _content(path).get("labels")
    if not isinstance(declared, Mapping) or len(declared) < 2:
        expected = 'such as {"background": 0, "tumour": 1}'
        raise DataError("dataset.json declares no labels", where=path, found=declared, expected=expected)
    if any(isinstance(value, str) for value in declared.values()):
        raise DataError(
            "dataset.json is of version 1, where labels are value to name",
            where=path,
            found=declared,
            expected='name to value, such as {"background": 0, "tumour": 1}',
            remedy="turn it round, or convert the folder with nnUNetv2_convert_old_nnUNet_dataset",
        )
    labels: dict[str, int | list[int]] = {}
    taken: dict[int, str] = {}
    for name, value in declared.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, int) and not isinstance(item, bool) for item in values):
            raise DataError("a label is no whole number or list of them", where=path, found=f"{name}: {value}")
        both = next((item for item in values if item in taken), None)
        if both is not None:
            raise DataError(
                "labels overlap: regions are no classes of one mask",
                where=path,
                found=f"{both} is in {taken[both]} and in {name}",
                remedy="declare `data.labels` so that each value belongs to one class",
            )
        taken |= dict.fromkeys(values, name)
        labels[name] = values[0] if len(values) == 1 else list(values)
    if "ignore" in labels:
        raise DataError(
            "the masks have a label to be ignored, which is no class",
            where=path,
            found=f"ignore: {labels['ignore']}",
            remedy="declare `data.labels` with the classes, and this value under `data.ignore`",
        )
    return dict(sorted(labels.items(), key=lambda item: 0 not in _values(item[1])))


def proposed_labels(root: Path) -> dict[str, int]:
    """`nnunet_labels`; empty where they are no single values of one mask: a finding of `read_nnunet` tells then."""
    try:
        labels = nnunet_labels(root)
    except DataError:
        return {}
    return {name: value for name, value in labels.items() if isinstance(value, int)} if _single(labels) else {}


def _single(labels: Mapping[str, int | list[int]]) -> bool:
    return all(isinstance(value, int) for value in labels.values())


def read_nnunet(root: Path, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    """Training and test cases; volumes slice by slice. Without splits_final.json `data.split` cuts validation.

    Test images without a folder of labels are left out with a note: they can be predicted. Raises DataError for
    several channels, endings that cannot be read, and files that nnU-Net would not understand either.
    """
    content = _content(root / DATASET)
    ending = _ending(root, content)
    if not data.labels:
        findings += _label_findings(root)
    cases: list[Case] = []
    for which, split in _FOLDERS:
        cases += _cases(root / f"images{which}", root / f"labels{which}", split, ending, data, findings)
    return list(expand_volumes(_divided(cases, root / SPLITS, findings)))


def _label_findings(root: Path) -> list[Finding]:
    """What `proposed_labels` cannot offer."""
    try:
        labels = nnunet_labels(root)
    except DataError as error:
        told = f"{error.what}; found {error.found}"
        return [finding("warning", "labels-unusable", root / DATASET, told, error.remedy)]
    if _single(labels):
        return []
    lines = ", ".join(f"{name}: {value}" for name, value in labels.items())
    return [finding("note", "labels-listed", root / DATASET, "a class has several values", f"`labels: {{{lines}}}`")]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except StorageError as error:
        raise DataError("dataset.json cannot be read", where=path, found=error.found, remedy=error.remedy) from error
    if not isinstance(content, dict):
        raise DataError("dataset.json is no table of names and values", where=path, found=type(content).__name__)
    return content


def _ending(root: Path, content: Mapping[str, Any]) -> str:
    ending = content.get("file_ending")
    if ending not in SUFFIXES:
        raise DataError(
            "dataset.json names no file_ending that can be read",
            where=root / DATASET,
            found=ending,
            expected=", ".join(SUFFIXES),
            remedy='convert the files to NIfTI and write "file_ending": ".nii.gz"'
            if ending
            else 'add "file_ending", such as ".nii.gz"',
        )
    return str(ending)


def _cases(
    images: Path, labels: Path, split: Split, ending: str, data: DataRecipe, findings: list[Finding]
) -> Iterator[Case]:
    if not images.is_dir():
        return
    by_name = _single_channel(images, ending, findings)
    if split == "test" and not labels.is_dir():
        told = f"{len(by_name)} test images, and no {labels.name}; left out"
        findings.append(finding("note", "no-reference", images, told, "`preceptor predict` segments them"))
        return
    masks = {place.name[: -len(ending)]: place for place in _files(labels, ending)} if labels.is_dir() else {}
    level = "warning" if data.drop_unpaired else "error"
    for code, here, other, kind in (
        ("missing-mask", by_name, masks, f"no label {labels.name}/"),
        ("missing-image", masks, by_name, f"no image {images.name}/"),
    ):
        for name in (name for name in here if name not in other):
            told = f"{kind}{name}{'' if code == 'missing-mask' else '_0000'}{ending}"
            told += "; left out" if data.drop_unpaired else ""
            remedy = "" if data.drop_unpaired else "add it, or leave such files out: `data.drop_unpaired: true`"
            findings.append(finding(level, code, here[name], told, remedy))  # type: ignore[arg-type]
    for name, image in by_name.items():
        if name in masks:
            yield Case(name, image, masks[name], split)


def _single_channel(folder: Path, ending: str, findings: list[Finding]) -> dict[str, Path]:
    """Case to its only image file."""
    result: dict[str, Path] = {}
    further: list[str] = []
    for place in _files(folder, ending):
        found = re.fullmatch(r"(.+)_(\d{4})", place.name[: -len(ending)])
        if found is None:
            remedy = f"name it <case>_0000{ending}"
            findings.append(finding("warning", "ignored-file", place, "the name ends with no channel number", remedy))
        elif found[2] != "0000":
            further.append(place.name)
        else:
            result[found[1]] = place
    if further:
        raise DataError(
            "the images have several channels in files of their own, which are not read together",
            where=folder,
            found=f"{len(further)} files beside the channel _0000",
            offenders=further,
            remedy="copy the folder with one channel only, renamed to _0000, and name that in channel_names",
        )
    return result


def _files(folder: Path, ending: str) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.name.endswith(ending) and not place.name.startswith("."))


def _divided(cases: list[Case], path: Path, findings: list[Finding]) -> list[Case]:
    """The cases with the splits of the first fold; training cases that it does not name get none."""
    if not path.is_file():
        return cases
    content = read_json(path)
    try:
        fold = {str(name): part for part in ("train", "val") for name in content[0][part]}
    except (KeyError, IndexError, TypeError) as error:
        expected = '[{"train": [names], "val": [names]}, ...]'
        raise DataError("the splits are not as nnU-Net writes them", where=path, expected=expected) from error
    known = {case.name for case in cases if case.split == "train"}
    findings += [
        finding("warning", "split-without-case", path, f"names {name}, which is no training case")
        for name in fold
        if name not in known
    ]
    if len(content) > 1:
        findings.append(finding("note", "first-fold", path, f"{len(content)} folds; the first is taken"))
    parts: dict[str, Split] = {name: "train" if part == "train" else "val" for name, part in fold.items()}
    return [
        Case(case.name, case.image, case.mask, parts.get(case.name, "") if case.split == "train" else case.split)
        for case in cases
    ]


def _values(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]
