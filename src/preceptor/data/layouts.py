"""The folders of a data set as cases: LViT, TextFreeKD, plain folders, or a manifest.

    lvit        {Train,Val,Test}_Folder/img, labelcol, {Train,Val,Test}_text.xlsx (or Train_Val_text.xlsx for both)
    textfreekd  {Train,Val,Test}/Images, GTs; prompt/{train,val,test}.csv
    folders     images/, masks/; optional reports.csv (case,report), splits.csv (case,split)
    manifest    cases.csv (case,split,image,mask,group,report,slice)

All but the manifest take an optional groups.csv (case,group). Source: specification of text-annotated data sets,
sections 1 and 2. What does not fit together becomes a finding; only a root without any layout is an exception.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from preceptor.data.annotations import REPORT_CODES, read_annotations
from preceptor.data.case import Case, CaseSet, Finding, Split, read_manifest
from preceptor.data.check_findings import finding
from preceptor.data.pairing import pair, stem, suffix
from preceptor.data.readers import volume_slices
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import DataRecipe

__all__ = ["REPORT_CODES", "read_cases", "recognise"]

MANIFEST = "cases.csv"

_LVIT: tuple[tuple[str, Split], ...] = (("Train_Folder", "train"), ("Val_Folder", "val"), ("Test_Folder", "test"))
_TEXTFREEKD: tuple[tuple[str, Split], ...] = (("Train", "train"), ("Val", "val"), ("Test", "test"))
_IGNORED = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _Part:
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


def recognise(root: Path | str) -> str:
    """The layout of `root`: "manifest", "lvit", "textfreekd" or "folders". A manifest goes before the others.

    Raises DataError that says what was looked for and what is there, where none or several fit.
    """
    root = Path(root)
    fitting = [name for name, (is_there, _) in _LAYOUTS.items() if is_there(root)]
    if fitting and (fitting[0] == "manifest" or len(fitting) == 1):
        return fitting[0]
    if fitting:
        remedy = "name one: `data.layout`"
        raise DataError("several layouts fit the data folder", where=root, found=", ".join(fitting), remedy=remedy)
    raise _no_layout(root, "no known layout is in the data folder", tuple(_LAYOUTS))


def read_cases(data: DataRecipe, root: Path | str | None = None) -> CaseSet:
    """The cases of `root` (`data.root` where left out) by the layout that is named or recognised.

    Cases come train, val, test, and by name; in the TextFreeKD layout and the manifest in the order of the rows, which
    the published tail split is defined on. Volumes become one case a slice, grouped by volume where no table says
    otherwise. Images without mask and masks without image are left out with a finding: an error, or a warning under
    `data.drop_unpaired`. Raises DataError where the root or the named layout is missing, or no case is left.
    """
    place = Path(root if root is not None else data.root).expanduser()
    if not str(root if root is not None else data.root):
        raise RecipeError("no data folder is named", where="data.root", remedy="set `data.root` to a folder")
    if not place.exists():
        remedy = "check the path; a relative path starts at the folder in which the command is given"
        raise DataError("the data folder does not exist", where=place.absolute(), remedy=remedy)
    place = place.resolve()
    if place.is_file():
        if place.suffix.lower() != ".csv" or data.layout not in ("auto", "manifest"):
            raise DataError(
                "the data root is a file", where=place, expected="a folder, or a manifest such as cases.csv"
            )
        return _finished(place.parent, "manifest", list(read_manifest(place)), [])
    layout = recognise(place) if data.layout == "auto" else data.layout
    is_there, parts = _LAYOUTS[layout]
    if not is_there(place):
        raise _no_layout(place, f"the layout {layout} is not in the data folder", (layout,))
    if layout == "manifest":
        return _finished(place, layout, list(read_manifest(place / MANIFEST)), [])
    findings: list[Finding] = []
    cases = _distinct([case for part in parts(place) for case in _part_cases(part, data, findings)], findings)
    return _finished(place, layout, _rooted(place, cases, data, findings, splits=layout == "folders"), findings)


def _lvit_parts(root: Path) -> list[_Part]:
    combined = root / "Train_Folder" / "Train_Val_text.xlsx"
    parts = []
    for folder, split in _LVIT:
        here, sheet = root / folder, folder.replace("Folder", "text")
        if not (here / "img").is_dir():
            continue
        images, masks, tables = here / "img", here / "labelcol", (here / f"{sheet}.xlsx", here / f"{sheet}.csv")
        if split == "test":
            parts.append(_Part(split, images, masks, tables, ("Image", "Description")))
            continue
        other = root / ("Val_Folder" if split == "train" else "Train_Folder")
        others = (other / "img", other / "labelcol")
        parts.append(
            _Part(split, images, masks, (*tables, combined), ("Image", "Description"), combined=combined, others=others)
        )
    return parts


def _textfreekd_parts(root: Path) -> list[_Part]:
    return [
        _Part(
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


def _folders_parts(root: Path) -> list[_Part]:
    return [_Part("", root / "images", root / "masks", (root / "reports.csv",), ("case", "report"))]


_LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], list[_Part]]]] = {
    "manifest": (lambda root: (root / MANIFEST).is_file(), lambda root: []),
    "lvit": (lambda root: bool(_lvit_parts(root)), _lvit_parts),
    "textfreekd": (lambda root: bool(_textfreekd_parts(root)), _textfreekd_parts),
    "folders": (lambda root: (root / "images").is_dir(), _folders_parts),
}
_SIGNS = {
    "manifest": MANIFEST,
    "lvit": "Train_Folder/img, Val_Folder/img or Test_Folder/img, each beside labelcol",
    "textfreekd": "Train/Images, Val/Images or Test/Images, each beside GTs",
    "folders": "images beside masks",
}


def _no_layout(root: Path, what: str, layouts: Iterable[str]) -> DataError:
    inside = sorted(place.name + ("/" if place.is_dir() else "") for place in root.iterdir())
    found = (", ".join(inside[:12]) + (f" and {len(inside) - 12} more" if len(inside) > 12 else "")) or "nothing"
    near = [
        f"{place}: {name}"
        for place in (root.parent, *sorted(place for place in root.iterdir() if place.is_dir()))
        for name, (is_there, _) in _LAYOUTS.items()
        if is_there(place)
    ]
    remedy = f"did you mean {near[0]}?" if near else "arrange the files as one of these, or write a manifest cases.csv"
    expected = "one of the layouts below"
    signs = [f"{name}: {_SIGNS[name]}" for name in layouts]
    return DataError(what, where=root, found=found, expected=expected, offenders=signs, remedy=remedy)


def _part_cases(part: _Part, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    """The paired images of one part with their reports, in the layout's order."""
    images = _files(part.images, findings)
    masks = _files(part.masks, findings) if part.masks.is_dir() else []
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
    cases = list(_expanded(paired))
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


def _files(folder: Path, findings: list[Finding]) -> list[str]:
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


def _distinct(cases: list[Case], findings: list[Finding]) -> list[Case]:
    """Cases with distinct names: a name in several splits gets the split in front, one in one split keeps its first."""
    places: dict[str, set[str]] = {}
    for case in cases:
        places.setdefault(case.name, set()).add(case.split)
    result: dict[str, Case] = {}
    for case in cases:
        name = case.name if len(places[case.name]) == 1 else f"{case.split}-{case.name}"
        if name in result:
            found = f"the name of {result[name].image.name} but for the ending"
            findings.append(finding("error", "same-name", case.image, found, "rename one of them"))
            continue
        if name != case.name:
            findings.append(
                finding("note", "renamed-case", case.image, f"called {name}: the name is in several splits")
            )
        result[name] = replace(case, name=name)
    return list(result.values())


def _expanded(cases: Iterable[Case]) -> Iterable[Case]:
    """One case a slice of each volume, named `<volume>-<slice>`, in the volume's group."""
    for case in cases:
        try:
            count = volume_slices(case.image) if case.slice is None else None
        except DataError:  # a damaged file stays one case; whoever reads it tells what is wrong with it
            count = None
        if count is None:
            yield case
            continue
        for at in range(count):
            yield replace(case, name=f"{case.name}-{at:03d}", slice=at, group=case.group or case.name)


def _rooted(root: Path, cases: list[Case], data: DataRecipe, findings: list[Finding], splits: bool) -> list[Case]:
    """The cases with what groups.csv and, in plain folders, splits.csv at the root say."""
    groups = read_annotations((root / "groups.csv",), ("case", "group"), kind="group", level="error", findings=findings)
    by_case = groups.match(cases)
    result = [replace(case, group=by_case.get(case.name) or case.group) for case in cases]
    if groups.rows:
        lost = [case for case in result if not by_case.get(case.name)]
        findings += [
            finding("warning", "no-group", case.name, "not in groups.csv", "add a row for it") for case in lost
        ]
    if not splits:
        return result
    table = read_annotations((root / "splits.csv",), ("case", "split"), kind="split", level="error", findings=findings)
    named = table.match(result)
    return [replace(case, split=named.get(case.name, "")) for case in result]  # type: ignore[arg-type]


def _finished(root: Path, layout: str, cases: list[Case], findings: list[Finding]) -> CaseSet:
    if layout == "manifest":
        cases = _distinct(list(_expanded(cases)), findings)
    if not cases:
        listed = [f"{item.where}: {item.message}" for item in findings]
        raise DataError("the data folder has no case", where=root, expected=_SIGNS[layout], offenders=listed)
    return CaseSet(root, layout, tuple(cases), tuple(dict.fromkeys(findings)))
