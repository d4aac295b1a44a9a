"""NIfTI volumes: the ACDC challenge's own folders, and plain folders of volumes beside folders of label volumes.

    acdc       training/<patient>/<patient>_frame<FF>.nii.gz, <patient>_frame<FF>_gt.nii.gz, Info.cfg, and testing
               likewise, at the root or in its folder `database`, `ACDC` or both
    volumes    images/*.nii.gz, masks/ or labels/ with the same names; optional reports.csv (case,report), groups.csv
               (case,group), splits.csv (case,split), whose rows name volumes or slices

Each slice becomes a case; only headers are read. Source of the first: the data page of the challenge (O. Bernard et
al., IEEE TMI 37(11), 2018).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from preceptor.data.case import Case, Finding, Split
from preceptor.data.check_findings import finding
from preceptor.data.layout_pictures import Part
from preceptor.data.pairing import stem, suffix
from preceptor.data.volume_cases import expand_volumes
from preceptor.recipe_data import DataRecipe

NIFTI = (".nii", ".nii.gz")

_ACDC: tuple[tuple[str, Split], ...] = (("training", "train"), ("testing", "test"))
_HOMES = ("", "database", "ACDC", "ACDC/database")
_FRAME = re.compile(r"(?P<patient>.+)_frame(?P<frame>\d+)$")


def holds_acdc(root: Path) -> bool:
    """Whether a folder of patients with frames is there."""
    return any(next(_patients(home / folder), None) for home in _homes(root) for folder, _ in _ACDC)


def read_acdc(root: Path, data: DataRecipe, findings: list[Finding]) -> list[Case]:
    """Frames that have a `_gt` file, slice by slice: `training` trains, `testing` tests; `data.split` cuts validation.

    The patient is the group, the frame of a patient the volume. The cine series (`_4d`) and frames that nobody drew
    are left out; a frame that Info.cfg names as end of diastole or systole and that lacks a file is a finding.
    """
    cases: list[Case] = []
    for folder, split in ((home / folder, split) for home in _homes(root) for folder, split in _ACDC):
        faults: list[Finding] = []
        found = [case for patient in _patients(folder) for case in _frames(patient, split, data, faults)]
        if not found and faults:  # the test set was published without references at first
            told = "no frame has a _gt file; left out"
            faults = [finding("warning", "no-reference", folder, told, "fine for prediction; judging needs them")]
        cases += found
        findings += faults
    return list(expand_volumes(cases))


def holds_volumes(root: Path) -> bool:
    """Whether the files in `images` are NIfTI and nothing else."""
    folder = root / "images"
    if not folder.is_dir():
        return False
    endings = {suffix(place.name).lower() for place in folder.iterdir() if not place.name.startswith(".")} - {""}
    return bool(endings) and endings <= set(NIFTI)


def volumes_parts(root: Path) -> list[Part]:
    """Volumes beside their label volumes, in `masks`, or in `labels` where there is no `masks`."""
    masks = root / "labels" if (root / "labels").is_dir() and not (root / "masks").is_dir() else root / "masks"
    return [Part("", root / "images", masks, (root / "reports.csv",), ("case", "report"))]


def _homes(root: Path) -> Iterator[Path]:
    """The first of the places where the folders `training` and `testing` may lie."""
    places = (root / name for name in _HOMES)
    yield from [place for place in places if any((place / folder).is_dir() for folder, _ in _ACDC)][:1]


def _patients(folder: Path) -> Iterator[Path]:
    """The folders of patients, by name; cheap: the first has been seen before the second is looked into."""
    if folder.is_dir():
        for place in sorted(folder.iterdir(), key=lambda place: place.name):
            if place.is_dir() and next(_named_frames(place), None):
                yield place


def _named_frames(patient: Path) -> Iterator[Path]:
    """NIfTI files `<anything>_frame<number>`, by name."""
    for place in sorted(patient.iterdir(), key=lambda place: place.name):
        if suffix(place.name).lower() in NIFTI and _FRAME.match(stem(place.name)):
            yield place


def _frames(patient: Path, split: Split, data: DataRecipe, findings: list[Finding]) -> Iterator[Case]:
    level = "warning" if data.drop_unpaired else "error"
    drawn = set()
    frames = list(_named_frames(patient))
    for image in frames:
        name = stem(image.name)
        masks = (patient / f"{name}_gt{ending}" for ending in (suffix(image.name), *NIFTI))
        mask = next((place for place in masks if place.is_file()), None)
        if mask is not None:
            drawn.add(_number(name))
            yield Case(name, image, mask, split, group=patient.name, volume=name)
    for phase, frame in _phases(patient / "Info.cfg").items():
        if frame not in drawn:
            kind = "its _gt file" if frame in {_number(stem(place.name)) for place in frames} else "it"
            told = f"Info.cfg names frame {frame} ({phase}), but {kind} is not there"
            remedy = "left out" if data.drop_unpaired else "add it, or leave such out: `data.drop_unpaired: true`"
            findings.append(finding(level, "missing-frame", patient, told, remedy))  # type: ignore[arg-type]


def _number(name: str) -> int:
    found = _FRAME.match(name)
    return int(found["frame"]) if found else -1


def _phases(path: Path) -> dict[str, int]:
    """Numbers of the frames at the end of diastole (ED) and systole (ES); empty where they are not stated."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return {phase: int(frame) for phase, frame in re.findall(r"^\s*(ED|ES)\s*:\s*(\d+)", text, re.MULTILINE)}
