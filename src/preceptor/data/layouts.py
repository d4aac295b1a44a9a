"""The arrangements of a data set's files that are known by name, and how their cases are read.

Each layout is one entry of LAYOUTS; its reader is in a module of its own (`layout_*.py`). A manifest cases.csv goes
before all of them. All but the manifest take an optional groups.csv (case,group). What does not fit together becomes a
finding; only a root without any layout is an exception.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from preceptor.data.annotations import REPORT_CODES, read_annotations
from preceptor.data.case import Case, CaseSet, Finding, read_manifest
from preceptor.data.check_findings import finding
from preceptor.data.layout_nnunet import holds_nnunet, proposed_labels, read_nnunet
from preceptor.data.layout_pictures import folders_parts, lvit_parts, read_parts, textfreekd_parts
from preceptor.data.layout_slices import (
    ACDC_LABELS,
    SYNAPSE_LABELS,
    holds_ssl4mis,
    holds_transunet,
    read_ssl4mis,
    read_transunet,
)
from preceptor.data.layout_volumes import holds_acdc, holds_volumes, read_acdc, volumes_parts
from preceptor.data.volume_cases import expand_volumes
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import DataRecipe

__all__ = ["LAYOUTS", "REPORT_CODES", "Layout", "read_cases", "recognise"]

MANIFEST = "cases.csv"


@dataclass(frozen=True)
class Layout:
    """An arrangement of files.

    sign: what is there, for people. recognise: whether a folder is arranged so; cheap, opens no image.
    read: the cases of the folder, in their order; faults are added to the list of findings.
    splits: whether a splits.csv (case,split) at the root divides the cases, as the folders do not.
    labels: what the data set calls its classes, name to stored value; proposed where a recipe declares none.
    within: a more general layout that such a folder has as well, and that goes behind this one.
    """

    sign: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, DataRecipe, list[Finding]], list[Case]]
    splits: bool = False
    labels: Callable[[Path], Mapping[str, int]] = lambda root: {}
    within: str = ""


def _read_manifest(root: Path, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    return list(expand_volumes(read_manifest(root / MANIFEST)))


LAYOUTS: dict[str, Layout] = {
    "manifest": Layout(MANIFEST, lambda root: (root / MANIFEST).is_file(), _read_manifest),
    "lvit": Layout(
        "Train_Folder/img, Val_Folder/img or Test_Folder/img, each beside labelcol",
        lambda root: bool(lvit_parts(root)),
        read_parts(lvit_parts),
    ),
    "textfreekd": Layout(
        "Train/Images, Val/Images or Test/Images, each beside GTs",
        lambda root: bool(textfreekd_parts(root)),
        read_parts(textfreekd_parts),
    ),
    "folders": Layout(
        "images beside masks, or img beside labelcol",
        lambda root: bool(folders_parts(root)),
        read_parts(folders_parts),
        splits=True,
    ),
    "ssl4mis": Layout(
        "data/slices and data with h5 files beside train_slices.list, val.list, test.list",
        holds_ssl4mis,
        read_ssl4mis,
        labels=lambda root: ACDC_LABELS,
    ),
    "transunet": Layout(
        "train_npz with case*_slice*.npz, test_vol_h5 with case*.npy.h5",
        holds_transunet,
        read_transunet,
        labels=lambda root: SYNAPSE_LABELS,
    ),
    "acdc": Layout(
        "training/patientNNN/patientNNN_frameFF.nii.gz beside patientNNN_frameFF_gt.nii.gz, testing likewise",
        holds_acdc,
        read_acdc,
        labels=lambda root: ACDC_LABELS,
    ),
    "nnunet": Layout("dataset.json beside imagesTr and labelsTr", holds_nnunet, read_nnunet, labels=proposed_labels),
    "volumes": Layout(
        "images with NIfTI files only, beside masks or labels",
        holds_volumes,
        read_parts(volumes_parts),
        splits=True,
        within="folders",
    ),
}


def recognise(root: Path | str) -> str:
    """The name of the layout of `root`; a manifest goes before the others.

    Raises DataError that says what was looked for and what is there, where none or several fit.
    """
    root = Path(root)
    fitting = [name for name, layout in LAYOUTS.items() if layout.recognise(root)]
    general = {LAYOUTS[name].within for name in fitting}
    fitting = [name for name in fitting if name not in general]
    if fitting and (fitting[0] == "manifest" or len(fitting) == 1):
        return fitting[0]
    if fitting:
        remedy = "name one: `data.layout`"
        raise DataError("several layouts fit the data folder", where=root, found=", ".join(fitting), remedy=remedy)
    raise _no_layout(root, "no known layout is in the data folder", tuple(LAYOUTS))


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
    findings: list[Finding] = []
    if place.is_file():
        if place.suffix.lower() != ".csv" or data.layout not in ("auto", "manifest"):
            raise DataError(
                "the data root is a file", where=place, expected="a folder, or a manifest such as cases.csv"
            )
        cases = _distinct(list(expand_volumes(read_manifest(place))), findings)
        cases = grouped(cases, data.group_pattern, findings)
        return CaseSet(place.parent, "manifest", tuple(cases), tuple(findings))
    name = recognise(place) if data.layout == "auto" else data.layout
    layout = LAYOUTS[name]
    if not layout.recognise(place):
        raise _no_layout(place, f"the layout {name} is not in the data folder", (name,))
    cases = _distinct(layout.read(place, data, findings), findings)
    if name != "manifest":
        cases = _rooted(place, cases, findings, layout.splits)
    cases = grouped(cases, data.group_pattern, findings)
    if not cases:
        listed = [f"{item.where}: {item.message}" for item in findings]
        raise DataError("the data folder has no case", where=place, expected=layout.sign, offenders=listed)
    return CaseSet(place, name, tuple(cases), tuple(dict.fromkeys(findings)), layout.labels(place))


def _no_layout(root: Path, what: str, layouts: Iterable[str]) -> DataError:
    inside = sorted(place.name + ("/" if place.is_dir() else "") for place in root.iterdir())
    found = (", ".join(inside[:12]) + (f" and {len(inside) - 12} more" if len(inside) > 12 else "")) or "nothing"
    near = [
        f"{place}: {name}"
        for place in (root.parent, *sorted(place for place in root.iterdir() if place.is_dir()))
        for name, layout in LAYOUTS.items()
        if layout.recognise(place)
    ]
    remedy = f"did you mean {near[0]}?" if near else "arrange the files as one of these, or write a manifest cases.csv"
    expected = "one of the layouts below"
    signs = [f"{name}: {LAYOUTS[name].sign}" for name in layouts]
    return DataError(what, where=root, found=found, expected=expected, offenders=signs, remedy=remedy)


def _distinct(cases: list[Case], findings: list[Finding]) -> list[Case]:
    """Cases with distinct names: a name in several splits gets the split in front, one in one split keeps its first."""
    places: dict[str, set[str]] = {}
    volumes: dict[str, set[str]] = {}
    for case in cases:
        places.setdefault(case.name, set()).add(case.split)
        volumes.setdefault(case.volume or "", set()).add(case.split)
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
        volume = case.volume
        if volume and len(volumes[volume]) > 1:
            volume = f"{case.split}-{volume}"
        result[name] = replace(case, name=name, volume=volume)
    return list(result.values())


def grouped(cases: list[Case], pattern: str | None, findings: list[Finding]) -> list[Case]:
    """The cases in the groups that the recipe's pattern finds in their names; as they are where there is none.

    findings: gets an error for each name in which it finds nothing.
    """
    if pattern is None:
        return cases
    result = []
    for case in cases:
        found = re.search(pattern, case.name)
        group = found and (found[1] if found.re.groups else found[0])
        if not group:
            remedy = "change `data.group_pattern` until it finds the patient in every name"
            findings.append(finding("error", "no-group", case.name, f"{pattern!r} finds nothing in it", remedy))
        result.append(replace(case, group=group or case.group))
    return result


def _rooted(root: Path, cases: list[Case], findings: list[Finding], splits: bool) -> list[Case]:
    """The cases with what groups.csv and, where the layout has no splits of its own, splits.csv at the root say."""
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
