"""Any set of cases as a raw data set of nnU-Net, version 2.

    <out>/DatasetNNN_Name/
      dataset.json                 channel_names, labels (background 0, then 1, 2, ...), numTraining, file_ending
      imagesTr, labelsTr           <case>_0000.nii.gz or .png, <case>.nii.gz or .png: train and val
      imagesTs, labelsTs           test
      splits_final.json            one fold of train and val; nnU-Net looks for it in its folder of preprocessed data
      groups.csv, conversion.json  what nnU-Net does not know: patients, and which stored values the classes had

Volumes are NIfTI: files are copied, HDF5, npz and stacks of slices are written anew with a distance of 1 where none is
known. Pictures are PNG. Masks are class indices on the very grid of their image. Source of the layout: as in
`preceptor.data.layout_nnunet`, which reads the result.
"""

import csv
import gzip
import io
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preceptor import __version__
from preceptor.data.case import Case
from preceptor.data.check_volumes import require_one_grid
from preceptor.data.layout_nnunet import DATASET, SPLITS
from preceptor.data.masks import IGNORED, decode_mask
from preceptor.data.pairing import suffix
from preceptor.data.readers import read_image, read_mask, volume_slices
from preceptor.data.transforms import is_grey
from preceptor.data.volume_cases import by_volume
from preceptor.data.volumes import volume_grid, write_image_volume, write_label_volume
from preceptor.errors import DataError, RecipeError
from preceptor.storage import replacing, replacing_folder, write_json, write_text

MARK = "conversion.json"
FIRST = 501
"""The first number of a data set that is not named in full: those of published data sets are lower."""

_VOLUMES = (".nii", ".nii.gz", ".h5", ".hdf5", ".npz")
_FULL = re.compile(r"Dataset\d{3}_[\w-]+", re.ASCII)
_ODD = set('/\\:*?"<>|')

Progress = Callable[[int, int], None]

_Read = Callable[[Case], np.ndarray]
"""From a case to its class indices."""


def write_nnunet(
    cases: Sequence[Case],
    labels: Mapping[str, Any],
    out: Path | str,
    name: str,
    *,
    mask_rule: str = "exact",
    ignore: Sequence[int] = (),
    channel: str = "image",
    licence: str = "",
    source: str = "",
    progress: Progress | None = None,
) -> Path:
    """Write `cases` and return the data set's folder, which appears when it is complete.

    labels, mask_rule, ignore: as in a recipe; the first class becomes `background`, and pixels that take no part get
    the number after the last class, nnU-Net's label `ignore`. out: the data set's folder where it is
    called as nnU-Net wants it, `Dataset027_ACDC`; else the folder above it. name: of the data set, `ACDC`, which gets
    the number that it had in `out` before, or the first free one from 501; or in full, `Dataset027_ACDC`.
    channel: nnU-Net chooses the normalisation by it; "CT" means Hounsfield units. Cases without split lie in imagesTr
    and in no fold.
    progress: called with (cases done, cases in all); a volume is one case.
    Raises RecipeError for labels and names that nnU-Net does not take, DataError for pictures among volumes, volumes in
    parts or several splits, training cases without mask, and files that cannot be read; StorageError where the folder
    holds another data set or the disk is full.
    """
    _require_labels(labels)
    classes = partial(_classes, labels=labels, rule=mask_rule, ignore=ignore)
    units = by_volume(cases)
    ending = _ending(units)
    _require_usable(units)
    folder = _folder(Path(out), name)
    channels: dict[str, int] = {}
    with replacing_folder(folder, MARK) as fresh:
        for done, (unit, slices) in enumerate(units.items(), start=1):
            which = "Ts" if slices[0].split == "test" else "Tr"
            image, mask = (
                fresh / f"images{which}" / f"{unit}_0000{ending}",
                fresh / f"labels{which}" / f"{unit}{ending}",
            )
            if ending == ".png":
                channels[unit] = _write_picture(slices[0], image, mask, classes)
            else:
                _write_volume(slices, image, mask, classes)
            if progress is not None:
                progress(done, len(units))
        coloured = 3 in channels.values()
        if coloured:
            _colour(fresh, [unit for unit, count in channels.items() if count == 1])
        _describe(
            fresh,
            folder.name,
            units,
            [*labels, *(["ignore"] if ignore else [])],
            ending,
            ("R", "G", "B") if coloured else (channel,),
        )
        facts = {"preceptor": __version__, "labels": dict(labels), "mask_rule": mask_rule, "ignore": list(ignore)}
        write_json(fresh / MARK, {**facts, "licence": licence, "source": source})
    return folder


def _describe(
    folder: Path,
    name: str,
    units: Mapping[str, Sequence[Case]],
    labels: Sequence[str],
    ending: str,
    channels: Sequence[str],
) -> None:
    """dataset.json, splits_final.json where there are both train and val, groups.csv where groups are known."""
    splits = {unit: slices[0].split for unit, slices in units.items()}
    classes = ["background", *labels[1:]]
    content = {
        "channel_names": {str(at): channel for at, channel in enumerate(channels)},
        "labels": {each: at for at, each in enumerate(classes)},
        "numTraining": sum(split != "test" for split in splits.values()),
        "file_ending": ending,
        "name": name,
    }
    write_json(folder / DATASET, content)
    fold = {part: [unit for unit, split in splits.items() if split == part] for part in ("train", "val")}
    if all(fold.values()):
        write_json(folder / SPLITS, [fold])
    groups = {unit: slices[0].group for unit, slices in units.items() if slices[0].group not in (None, unit)}
    if groups:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("case", "group"), *((unit, slices[0].group or unit) for unit, slices in units.items())])
        write_text(folder / "groups.csv", text.getvalue())


def _require_labels(labels: Mapping[str, Any]) -> None:
    if len(labels) < 2:
        remedy = "name the classes: `data.labels`, or --label for each"
        raise RecipeError("nnU-Net needs labels", where="data.labels", found=dict(labels), remedy=remedy)
    reserved = [name for name in list(labels)[1:] if name in ("background", "ignore")]
    if reserved:
        remedy = "rename the class; the background is the first"
        raise RecipeError("nnU-Net keeps this name for itself", where="data.labels", found=reserved[0], remedy=remedy)


def _folder(out: Path, name: str) -> Path:
    if _FULL.fullmatch(out.name):
        return out
    if _FULL.fullmatch(name):
        return out / name
    if not re.fullmatch(r"(?!Dataset\d)[A-Za-z][\w-]*", name, re.ASCII):
        expected = "letters, digits, _ and -, such as ACDC or Dataset027_ACDC"
        raise RecipeError("the name is none for nnU-Net", where="--name", found=name, expected=expected)
    there = sorted(place.name for place in out.glob("Dataset[0-9][0-9][0-9]_*")) if out.is_dir() else []
    earlier = next((each for each in there if each[11:] == name and (out / each / MARK).is_file()), None)
    taken = {int(each[7:10]) for each in there}
    number = next((number for number in range(FIRST, 1000) if number not in taken), None)
    if earlier is None and number is None:
        raise RecipeError("no number is free", where=out, remedy="name the data set in full: Dataset027_ACDC")
    return out / (earlier or f"Dataset{number}_{name}")


def _ending(units: Mapping[str, Sequence[Case]]) -> str:
    """nnU-Net takes one kind of file: .nii.gz where every case is a volume, .png where none is."""
    volumes = [
        unit
        for unit, (first, *_) in units.items()
        if first.volume is not None or suffix(first.image.name).lower() in _VOLUMES
    ]
    if volumes and len(volumes) < len(units):
        raise DataError(
            "pictures and volumes cannot be one data set of nnU-Net",
            found=f"{len(volumes)} volumes and {len(units) - len(volumes)} pictures",
            remedy="write two, each from a manifest of its own (`preceptor check DATA --write-manifest cases.csv`)",
        )
    return ".nii.gz" if volumes else ".png"


def _require_usable(units: Mapping[str, Sequence[Case]]) -> None:
    odd = [unit for unit in units if set(unit) & _ODD or unit.startswith(".")]
    if odd:
        raise DataError("names of cases cannot be those of files", offenders=odd, remedy="rename them")
    divided = [unit for unit, slices in units.items() if len({case.split for case in slices}) > 1]
    if divided:
        remedy = "divide by patient: groups, and `data.split.rule: random`"
        raise DataError("slices of one volume are in several splits", offenders=divided, remedy=remedy)
    without = [
        unit
        for unit, slices in units.items()
        if any(case.mask is None for case in slices)
        and (slices[0].split != "test" or any(case.mask is not None for case in slices))
    ]
    if without:
        remedy = "give them masks, or leave them out"
        raise DataError("cases to train on have no mask", offenders=without, remedy=remedy)
    parts = [unit for unit, slices in units.items() if _is_part(slices)]
    if parts:
        remedy = "an empty `slice` in the manifest means all slices"
        raise DataError("volumes lack slices that their files have", offenders=parts, remedy=remedy)


def _is_part(slices: Sequence[Case]) -> bool:
    """Whether the slices are some of those in one volume file."""
    if slices[0].slice is None:
        return False
    numbers = [case.slice for case in slices]
    return len({case.image for case in slices}) > 1 or numbers != list(range(volume_slices(slices[0].image) or 1))


def _write_volume(slices: Sequence[Case], image: Path, mask: Path, read: _Read) -> None:
    source = slices[0].image
    if suffix(source.name).lower() in (".nii", ".nii.gz") and len({case.image for case in slices}) == 1:
        _copy(source, image)
        if slices[0].mask is not None:
            require_one_grid(source, slices[0].mask)
    else:
        pictures = [read_image(case.image, case.slice) for case in slices]
        shapes = {picture.pixels.shape for picture in pictures}
        if len(shapes) > 1 or pictures[0].pixels.ndim != 2:
            found = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
            raise DataError("the slices make no volume", where=source, found=found, expected="grey slices of one size")
        spacing = pictures[0].geometry.spacing
        pixels = np.stack([picture.pixels for picture in pictures])
        if pixels.dtype.kind in "bf":  # NIfTI has neither truth values nor half precision
            pixels = pixels.astype(np.uint8 if pixels.dtype.kind == "b" else np.promote_types(pixels.dtype, np.float32))
        write_image_volume(image, pixels, (1.0, *spacing) if spacing else None)
    if slices[0].mask is None:
        return
    classes = [read(case) for case in slices]
    grid, _ = volume_grid(image)
    if {part.shape for part in classes} != {grid[1:]}:
        raise DataError(
            "image and mask differ in shape", where=slices[0].mask, found=classes[0].shape, expected=grid[1:]
        )
    write_label_volume(mask, classes, image)


def _copy(source: Path, target: Path) -> None:
    """The same bytes; packed where the source is not."""
    with replacing(target) as temporary, open(source, "rb") as file, open(temporary, "wb") as raw:
        if source.name.lower().endswith(".gz"):
            shutil.copyfileobj(file, raw, 2**20)
            return
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            shutil.copyfileobj(file, packed, 2**20)


def _write_picture(case: Case, image: Path, mask: Path, read: _Read) -> int:
    """Returns the number of channels that were written: 1 where all are alike, else 3."""
    pixels = read_image(case.image).pixels
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if is_grey(pixels) else pixels[..., :3]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype not in ((np.uint8, np.uint16) if pixels.ndim == 2 else (np.uint8,)):
        raise DataError(
            "a PNG file cannot hold this picture",
            where=case.image,
            found=f"{pixels.dtype}, {1 if pixels.ndim == 2 else 3} channels",
            expected="unsigned integers of 8 bits, or of 16 bits in grey",
            remedy="write the pictures as NIfTI, each with its own values",
        )
    _write_png(image, pixels)
    if case.mask is not None:
        classes = read(case)
        if classes.shape != pixels.shape[:2]:
            found, expected = classes.shape, pixels.shape[:2]
            raise DataError("image and mask differ in shape", where=case.mask, found=found, expected=expected)
        _write_png(mask, classes)
    return 1 if pixels.ndim == 2 else 3


def _colour(folder: Path, grey: Sequence[str]) -> None:
    """Write grey pictures among coloured ones anew with three channels: nnU-Net needs as many in each."""
    for unit in grey:
        place = next(path for which in ("Tr", "Ts") if (path := folder / f"images{which}/{unit}_0000.png").is_file())
        pixels = read_image(place).pixels
        if pixels.dtype != np.uint8:
            remedy = "write grey and coloured pictures as two data sets"
            raise DataError("a picture of 16 bits lies among coloured ones", where=unit, remedy=remedy)
        _write_png(place, np.repeat(pixels[..., None], 3, axis=2))


def _classes(case: Case, labels: Mapping[str, Any], rule: str, ignore: Sequence[int]) -> np.ndarray:
    """Class indices; nnU-Net wants the label that takes no part to be the highest, without a gap."""
    assert case.mask is not None
    found = decode_mask(read_mask(case.mask, case.slice).pixels, labels, rule, case.mask, ignore)
    return np.where(found == IGNORED, np.uint8(len(labels)), found) if ignore else found


def _write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")
