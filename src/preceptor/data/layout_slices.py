"""Slices for training beside volumes for judging: ACDC as SSL4MIS has it, Synapse as TransUNet prepares it.

    ssl4mis     data/slices/<patient>_frame<FF>_slice_<K>.h5, data/<patient>_frame<FF>.h5,
                {train_slices,train,val,test}.list, at the root or in its folder ACDC
    transunet   train_npz/case<XXXX>_slice<YYY>.npz, test_vol_h5/case<XXXX>.npy.h5,
                lists/lists_Synapse/{train,test_vol}.txt, at the root or in its folder Synapse

Every file holds an image and its label. Cases come in the order of patient, frame and slice numbers. Sources: the data
folders of SSL4MIS; the specification of segmentors, section 8.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preceptor.data.case import Case, Finding, Split
from preceptor.data.check_findings import finding
from preceptor.data.volume_cases import expand_volumes
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe

ACDC_LABELS = {"background": 0, "right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
SYNAPSE_LABELS = {
    name: value
    for value, name in enumerate(
        ("background", "aorta", "gallbladder", "left_kidney", "right_kidney", "liver", "pancreas", "spleen", "stomach")
    )
}

_SYNAPSE_FOLDERS = ("train_npz", "test_vol_h5")

SYNAPSE_TRAIN = (5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40)
SYNAPSE_TEST = (8, 22, 38, 36, 32, 2, 29, 3, 1, 4, 25, 35)
"""The published split of the thirty scans, where the lists are missing."""


def holds_ssl4mis(root: Path) -> bool:
    """Whether lists of slices or volumes lie beside a folder `data`."""
    home = _home(root, "ACDC", "data")
    return (home / "data").is_dir() and any((home / f"{name}.list").is_file() for name in ("train_slices", "test"))


def holds_transunet(root: Path) -> bool:
    """Whether there are npz slices or test volumes under the published folder names."""
    home = _home(root, "Synapse", *_SYNAPSE_FOLDERS)
    return any((home / folder).is_dir() for folder in _SYNAPSE_FOLDERS)


def read_ssl4mis(root: Path, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    """Training slices, validation and test volumes. The patient is the group, the frame of a patient the volume.

    Without the folder of slices the volumes of train.list train. Entries of lists without a file are errors (warnings
    under `data.drop_unpaired`), files without an entry are left out with a warning.
    """
    home = _home(root, "ACDC", "data")
    volumes = _Files.of(home / "data", (".h5",), findings)
    slices = _Files.of(home / "data" / "slices", (".h5",), findings, needed=False)
    train = _read_list(home / "train.list")
    if slices.by_name:
        whole = set(train or ())
        listed = _read_list(home / "train_slices.list")
        if listed is None:
            listed = [name for name in slices.by_name if _volume(name) in whole]
        cases = slices.listed(listed, "train", home / "train_slices.list", data)
        lost = whole - {case.volume for case in cases}
        findings += [
            finding("warning", "listed-not-there", home / "train.list", f"{name}: none of its slices is there")
            for name in sorted(lost, key=_numbers)
        ]
    else:
        cases = volumes.listed(train or (), "train", home / "train.list", data)
    slices.tell_others(cases)
    for split in ("val", "test"):
        place = home / f"{split}.list"
        cases += volumes.listed(_read_list(place) or (), split, place, data)
    volumes.tell_others(cases, known=train or ())
    return list(expand_volumes(cases))


def read_transunet(root: Path, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    """Training slices and test volumes; a scan is group and volume. There is no validation: `data.split` cuts it.

    Where a list is missing, the published split of eighteen and twelve scans is taken. Other findings as in
    `read_ssl4mis`.
    """
    home = _home(root, "Synapse", *_SYNAPSE_FOLDERS)
    cases: list[Case] = []
    parts: tuple[tuple[str, tuple[str, ...], str, Split, tuple[int, ...]], ...] = (
        ("train_npz", (".npz",), "train.txt", "train", SYNAPSE_TRAIN),
        ("test_vol_h5", (".npy.h5", ".h5"), "test_vol.txt", "test", SYNAPSE_TEST),
    )
    for folder, endings, name, split, published in parts:
        files = _Files.of(home / folder, endings, findings)
        if not files.by_name:
            continue
        places = (home / "lists" / "lists_Synapse", root / "lists" / "lists_Synapse", home / "lists", home)
        place = next((place / name for place in places if (place / name).is_file()), home / name)
        listed = _read_list(place)
        if listed is None:
            scans = [f"case{number:04d}" for number in published]
            listed = [file for file in files.by_name if _volume(file) in scans]
            there = {_volume(file) for file in listed}
            told = f"no {name}; the published {len(scans)} scans are taken, {len(there)} of which are there"
            findings.append(finding("note", "published-split", home / folder, told))
        found = files.listed(listed, split, place, data)
        files.tell_others(found)
        cases += found
    return list(expand_volumes(cases))


@dataclass(frozen=True)
class _Files:
    """The files of one folder by their names without ending."""

    folder: Path
    by_name: Mapping[str, Path]
    findings: list[Finding]

    @classmethod
    def of(cls, folder: Path, endings: tuple[str, ...], findings: list[Finding], needed: bool = True) -> "_Files":
        if not folder.is_dir():
            if needed:
                findings.append(finding("warning", "missing-folder", folder, "the folder of the layout is not there"))
            return cls(folder, {}, findings)
        found = {}
        for place in folder.iterdir():
            ending = next((ending for ending in endings if place.name.lower().endswith(ending)), None)
            if ending is not None and place.is_file() and not place.name.startswith("."):
                found[place.name[: -len(ending)]] = place
        return cls(folder, {name: found[name] for name in sorted(found, key=_numbers)}, findings)

    def listed(self, names: Iterable[str], split: Split, source: Path, data: DataRecipe) -> list[Case]:
        """The cases of a list, in the order of their numbers."""
        level = "warning" if data.drop_unpaired else "error"
        cases = []
        for name in sorted(dict.fromkeys(names), key=_numbers):
            path = self.by_name.get(name)
            if path is None:
                told = f"names {name}, which is not in {self.folder.name}" + (
                    "; left out" if data.drop_unpaired else ""
                )
                remedy = "" if data.drop_unpaired else "add the file, or leave such out: `data.drop_unpaired: true`"
                self.findings.append(finding(level, "listed-not-there", source, told, remedy))  # type: ignore[arg-type]
                continue
            volume = _volume(name)
            cases.append(Case(name, path, path, split, re.sub(r"_frame\d+$", "", volume), volume=volume))
        return cases

    def tell_others(self, cases: Iterable[Case], known: Iterable[str] = ()) -> None:
        """A finding for each file that no list names. known: further names of lists."""
        taken = {case.image for case in cases} | {self.by_name[name] for name in known if name in self.by_name}
        remedy = "add it to the list of its split, or remove it"
        self.findings.extend(
            finding("warning", "not-listed", path, "in no list; left out", remedy)
            for path in self.by_name.values()
            if path not in taken
        )


def _home(root: Path, inner: str, *signs: str) -> Path:
    """`root`, or its folder `inner` where that has one of the folders `signs` and the root has none."""
    here, there = (any((place / sign).is_dir() for sign in signs) for place in (root, root / inner))
    return root / inner if there and not here else root


def _volume(name: str) -> str:
    return re.sub(r"_slice_?\d+$", "", name)


def _numbers(name: str) -> tuple[str | int, ...]:
    """Sorts `slice_2` before `slice_10`: the texts between the numbers, and the numbers as such."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


def _read_list(path: Path) -> list[str] | None:
    """The names in a list, one a line, without ending; None where there is no list."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("the list is no text", where=path, found=str(error), remedy="save it as UTF-8") from error
    return [re.sub(r"(\.npy)?\.(h5|npz)$", "", line.strip()) for line in lines if line.strip()]
