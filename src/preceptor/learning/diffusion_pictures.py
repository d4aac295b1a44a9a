"""The pictures that a diffusion U-Net learns from: which, decoded once into memory, and square crops of them."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from preceptor.data.case import Case, Finding
from preceptor.data.layouts import LAYOUTS, grouped, read_cases
from preceptor.data.readers import Picture, read_image
from preceptor.data.splits import assign_splits
from preceptor.data.transforms import Preprocessing
from preceptor.data.volume_cases import expand_volumes
from preceptor.delivery.listing import list_sources
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_diffusion import DiffusionRecipe, PictureRecipe

DECODERS = 2

_MASKS = re.compile(r"labelcol|masks?|labels?(tr|ts)?|gts?|annotations?|ground_?truth", re.IGNORECASE)
_TESTS = re.compile(r"test(s|ing)?([_-].*)?|imagests", re.IGNORECASE)


def pictures_of(data: PictureRecipe, out: Path | None = None) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """(cases to learn from, cases held out) of a data set or of a folder of pictures; never a test case.

    out: a folder within that is passed over. Raises DataError where there is no picture, where test cases cannot be
    told apart, and where masks lie among the pictures of a folder.
    """
    if not data.root:
        raise RecipeError("no folder of pictures is named", where="data.root", remedy="--set data.root=FOLDER")
    root = Path(data.root).expanduser()
    arranged = root.is_file() or data.layout != "auto" or any(layout.recognise(root) for layout in LAYOUTS.values())
    cases: tuple[Case, ...] = ()
    if arranged or not root.exists():
        found = read_cases(data.section)
        cases = found.cases
        _require_patients([item for item in found.findings if item.code == "no-group"], root)
    if not any(case.mask or case.split for case in cases):
        split = data.split.model_copy(update={"rule": "random", "test": 0.0})
        cases = assign_splits(_folder(root, out, data.group_pattern), split)
    elif data.split.rule == "given" and not all(case.split for case in cases):
        raise DataError(
            "the data set has no splits, so that its test cases cannot be left alone",
            where=root,
            remedy="name its recipe in place of the folder, add splits.csv (case,split), or, where every picture may "
            "be learned from, name the folder of the pictures itself",
        )
    else:
        cases = assign_splits(cases, data.split)
    train, held_out = (tuple(case for case in cases if case.split == split) for split in ("train", "val"))
    if not train:
        raise DataError("there is no picture to learn from", where=root, found=f"{len(cases)} cases, none of train")
    return train, held_out


def _folder(root: Path, out: Path | None, group_pattern: str | None) -> list[Case]:
    """Every picture below `root`, volumes as one case a slice, in the groups that the pattern finds in their names."""
    paths = [source.path for source in list_sources([root], out or root / ".out")]
    if not paths:
        raise DataError(
            "there is no picture in this folder or below",
            where=root,
            expected="PNG, JPEG, BMP, TIFF, DICOM, NIfTI, HDF5 or npz files",
            remedy="check the path, or name the folder of a data set in a known layout (`preceptor list layouts`)",
        )
    relative = [path.relative_to(root.absolute()) for path in paths]
    for pattern, what, remedy in (
        (_MASKS, "masks lie among the pictures", "name the folder of the images alone"),
        (_TESTS, "pictures to test on lie among the others", "name the folder of the training images"),
    ):
        found = sorted({part for path in relative for part in path.parts[:-1] if pattern.fullmatch(part)})
        if found:
            raise DataError(what, where=root, found=f"the folder {', '.join(found)}", remedy=remedy)
    names = [path.as_posix().replace("/", "-") for path in relative]
    cases = list(expand_volumes(Case(name, path) for name, path in zip(names, paths, strict=True)))
    faults: list[Finding] = []
    cases = grouped(cases, group_pattern, faults)
    _require_patients(faults, root)
    return cases


def _require_patients(faults: Sequence[Finding], root: Path) -> None:
    """faults: of `data.group_pattern`; without the patient a picture may land on either side of a split."""
    if faults:
        raise DataError(
            "no patient is found in the names of pictures",
            where=root,
            offenders=[f"{fault.where}: {fault.message}" for fault in faults],
        )


@dataclass(frozen=True)
class PicturePool:
    """Decoded pictures in memory, each [C, H, W] in the range -1 to 1: uint8 for 0 to 255, else float16.

    side: of the squares that are cut from them. flips: probabilities of mirroring left to right and top to bottom.
    """

    names: tuple[str, ...]
    pictures: tuple[np.ndarray, ...]
    side: int
    flips: tuple[float, float] = (0.0, 0.0)
    turns: bool = False

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def bytes(self) -> int:
        """What the pictures take of the memory."""
        return sum(picture.nbytes for picture in self.pictures)

    def part(self, places: slice) -> "PicturePool":
        """Some of the pictures."""
        return replace(self, names=self.names[places], pictures=self.pictures[places])

    def crops(self, numbers: Sequence[int], generator: torch.Generator, *, plain: bool = False) -> Tensor:
        """float32 [B, C, side, side] in [-1, 1]: a random square of each picture, mirrored and turned at random.

        plain: neither mirrored nor turned. What is drawn from `generator` depends on the length of `numbers` alone.
        """
        drawn = torch.rand(len(numbers), 5, generator=generator).tolist()
        return torch.stack(
            [self._crop(self.pictures[number], draw, plain) for number, draw in zip(numbers, drawn, strict=True)]
        )

    def _crop(self, picture: np.ndarray, drawn: Sequence[float], plain: bool) -> Tensor:
        """drawn: from 0 to 1, which rows, which columns, mirrored left to right, top to bottom, and turned."""
        top, left = (
            int(draw * (length - self.side + 1)) for draw, length in zip(drawn[:2], picture.shape[1:], strict=True)
        )
        crop = torch.from_numpy(picture[:, top : top + self.side, left : left + self.side].astype(np.float32))
        if picture.dtype == np.uint8:
            crop = crop / 127.5 - 1
        if plain:
            return crop
        mirrored = [axis for axis, draw, share in zip((2, 1), drawn[2:4], self.flips, strict=True) if draw < share]
        crop = crop.flip(mirrored) if mirrored else crop
        return torch.rot90(crop, int(4 * drawn[4]), (1, 2)) if self.turns else crop


def decode_pictures(
    cases: Sequence[Case],
    settings: DiffusionRecipe,
    side: int,
    progress: Callable[[int, int], None] | None = None,
    expect: Callable[[int], None] | None = None,
) -> PicturePool:
    """Read, scale and keep the pictures of `cases`.

    side: of the crops, in pixels. expect: told how many bytes all pictures take if they are like the first. Raises
    DataError that lists every picture that cannot be read, and every one that is smaller than a crop.
    """

    def decode(case: Case) -> np.ndarray | DataError:
        try:
            return _decode(read_image(case.image, case.slice), case.image, settings, side)
        except DataError as error:
            return error

    found: list[np.ndarray | DataError] = []
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        for picture in pool.map(decode, cases):
            if not found and expect is not None and isinstance(picture, np.ndarray):
                expect(picture.nbytes * len(cases))
            found.append(picture)
            if progress is not None:
                progress(len(found), len(cases))
    bad = [error for error in found if isinstance(error, DataError)]
    if len(bad) == 1:
        raise bad[0]
    if bad:
        raise DataError(
            "pictures cannot be used",
            found=f"{len(bad)} of {len(found)}",
            offenders=[f"{error.where}: {error.what}" + (f" ({error.found})" if error.found else "") for error in bad],
            remedy=bad[0].remedy or "mend or remove them",
        )
    pictures = tuple(picture for picture in found if isinstance(picture, np.ndarray))
    flips = (settings.flip_horizontal, settings.flip_vertical)
    return PicturePool(tuple(case.name for case in cases), pictures, side, flips, settings.turns)


def _decode(picture: Picture, where: Path, settings: DiffusionRecipe, side: int) -> np.ndarray:
    data, pixels = settings.data, picture.pixels
    _require_range(pixels, where, data.clip)
    size = _size(pixels.shape[:2], settings, side)
    if min(size) < side:
        raise DataError(
            "the picture is smaller than the square that is to be cut from it",
            where=where,
            found=f"{size[0]} x {size[1]} pixels" + (f" at scale {settings.scale}" if settings.scale else ""),
            expected=f"at least {side} x {side}",
            remedy=f"set scale={side} to enlarge the pictures, a smaller image_size, or framing=whole",
        )
    clip = None if data.clip is None else (data.clip[0], data.clip[1])
    preparation = Preprocessing(size, data.channels, data.resize, data.antialias, "symmetric", clip)
    values = preparation.apply(picture, where).clamp(-1, 1)
    if pixels.dtype == np.uint8 and clip is None:
        return ((values + 1) * 127.5).round().to(torch.uint8).numpy()
    return values.to(torch.float16).numpy()


def _size(shape: tuple[int, ...], settings: DiffusionRecipe, side: int) -> tuple[int, int]:
    if settings.framing == "whole":
        return side, side
    if settings.scale is None:
        return shape[0], shape[1]
    shortest = min(shape)
    height, width = (max(settings.scale, round(length * settings.scale / shortest)) for length in shape)
    return height, width


def _require_range(pixels: np.ndarray, where: Path, clip: list[float] | None) -> None:
    """Values of other types than unsigned integers have no range of their own, so that they need one."""
    if clip is not None or pixels.dtype.kind in "ub" or not pixels.size:
        return
    low, high = float(np.min(pixels)), float(np.max(pixels))
    if low < -0.01 or high > 1.01:
        raise DataError(
            "it is not said which values are black and white",
            where=where,
            found=f"{pixels.dtype} from {low:g} to {high:g}",
            expected="unsigned integers, or values from 0 to 1",
            remedy="set data.clip=[low, high], as in --set data.clip=[-160,240]; give TextDiff's recipe the same",
        )
