"""Folders of pictures or volumes beside folders of masks: LViT, TextFreeKD and plain folders.

    lvit        {Train,Val,Test}_Folder/img, labelcol, {Train,Val,Test}_text.xlsx (or Train_Val_text.xlsx for both)
    textfreekd  {Train,Val,Test}/Images, GTs; prompt/{train,val,test}.csv
    folders     images/, masks/ (or img/, labelcol/); optional reports.csv (case,report), splits.csv (case,split)

Source: specification of text-annotated data sets, sections 1 and 2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from preceptor.data.annotations import read_annotations
from preceptor.data.case import Case, Finding, Split
from preceptor.data.check_findings import finding
from preceptor.data.pairing import pair, stem, suffix
from preceptor.data.volume_cases import expand_volumes
from preceptor.recipe_data import DataRecipe

_LVIT: tuple[tuple[str, Split], ...] = (("Train_Folder", "train"), ("Val_Folder", "val"), ("Test_Folder", "test"))
_TEXTFREEKD: tuple[tuple[str, Split], ...] = (("Train", "train"), ("Val", "val"), ("Test", "test"))
_FOLDERS = (("images", "masks"), ("img", "labelcol"))
_IGNORED = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Part:
    """One folder of images with its folder of masks and its table.

    tables: the first that exists is read; its columns name the file and the report. in_rows: cases come in its order.
    combined, others: a table that also has rows for files in the folders `others`.
    """

    split: Split
    images: Path
    masks: Path
    tables: tuple[Path, ...]
    columns: tuple[str, str]
    in_rows: bool = False
    combined: Path | None = None
    others: tuple[Path, ...] = ()


def lvit_parts(root: Path) -> list[Part]:
    combined = root / "Train_Folder" / "Train_Val_text.xlsx"
    parts = []
    for folder, split in _LVIT:
        here, sheet = root / folder, folder.replace("Folder", "text")
        if not (here / "img").is_dir():
            continue
        images, masks, tables = here / "img", here / "labelcol", (here / f"{sheet}.xlsx", here / f"{sheet}.csv")
        if split == "test":
            parts.append(Part(split, images, masks, tables, ("Image", "Description")))
            continue
        other = root / ("Val_Folder" if split == "train" else "Train_Folder")
        others = (other / "img", other / "labelcol")
        parts.append(
            Part(split, images, masks, (*tables, combined), ("Image", "Description"), combined=combined, others=others)
        )
    return parts


def textfreekd_parts(root: Path) -> list[Part]:
    return [
        Part(
            split,
            root / folder / "Images",
            root / folder / "GTs",
            (root / "prompt" / f"{split}.csv",),
            ("Image", "Description"),
            in_rows=True,
        )
        for folder, split in _TEXTFREEKD
        if (root / folder / "Images").is_dir()
    ]


def folders_parts(root: Path) -> list[Part]:
    if root.name in dict(_LVIT):  # a part of an LViT set, whose reports are in tables of their own
        return []
    there = [(root / images, root / masks) for images, masks in _FOLDERS if (root / images).is_dir()]
    return [Part("", images, masks, (root / "reports.csv",), ("case", "report")) for images, masks in there[:1]]


def read_parts(
    parts: Callable[[Path], list[Part]],
) -> Callable[[Path, DataRecipe, list[Finding]], list[Case]]:
    """A reader of the layout that has these parts."""

    def read(root: Path, data: DataRecipe, findings: list[Finding]) -> list[Case]:
        return [case for part in parts(root) for case in _part_cases(part, data, findings)]

    return read


def _part_cases(part: Part, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    """The paired images of one part with their reports, in the layout's order."""
    images = readable_files(part.images, findings)
    masks = readable_files(part.masks, findings) if part.masks.is_dir() else []
    level = "warning" if data.drop_unpaired else "error"
    if not part.masks.is_dir():
        remedy = "fine for prediction; training and judging need masks"
        findings.append(finding("warning", "missing-folder", part.masks, "there is no folder of masks", remedy))
        pairs = {}
    else:
        pairs = pair(images, masks)
    paired = [
        Case(stem(name), part.images / name, part.masks / pairs[name] if name in pairs else None, part.split)
        for name in images
        if name in pairs or not part.masks.is_dir()
    ]
    lone_images = [name for name in images if name not in pairs] if part.masks.is_dir() else []
    lone_masks = [name for name in masks if name not in pairs.values()]
    cases = list(expand_volumes(paired))
    reports = read_annotations(part.tables, part.columns, kind="report", level=_report_level(data), findings=findings)
    spare = [*lone_images, *lone_masks]
    if reports.path is not None and reports.path == part.combined:
        spare += [place.name for folder in part.others if folder.is_dir() for place in folder.iterdir()]
    by_case = reports.match(cases, spare)
    cases = [replace(case, report=by_case.get(case.name)) for case in cases]
    if part.in_rows:
        cases = reports.in_order(cases)
    for code, folder, names, other, where in (
        ("missing-mask", part.images, lone_images, "mask", part.masks),
        ("missing-image", part.masks, lone_masks, "image", part.images),
    ):
        told = f"no {other} in {where.parent.name}/{where.name}" + ("; left out" if data.drop_unpaired else "")
        remedy = "" if data.drop_unpaired else "add it, or leave such files out: `data.drop_unpaired: true`"
        findings += [finding(level, code, folder / name, told, remedy) for name in names]  # type: ignore[arg-type]
    return cases


def _report_level(data: DataRecipe) -> str:
    return "error" if data.missing_text == "error" else "warning"


def readable_files(folder: Path, findings: list[Finding]) -> list[str]:
    """Names of the readable files of a folder, sorted; others become findings, hidden ones do not."""
    names = []
    for place in sorted(folder.iterdir(), key=lambda place: place.name):
        if place.name.startswith(".") or place.name.lower() in _IGNORED:
            continue
        if place.is_dir():
            findings.append(finding("warning", "ignored-folder", place, "folders in here are not read"))
        elif suffix(place.name) or not place.suffix:
            names.append(place.name)
        else:
            findings.append(finding("warning", "ignored-file", place, f"no reader for {place.suffix} files"))
    return names
