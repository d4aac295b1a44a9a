"""A shelf: the cases of a split, decoded and resized once, as memory-mapped arrays under a key of their content.

Files of a shelf, in `<folder>/<key>/`: `images.npy` float32 [N, C, H, W], normalised; `masks.npy` uint8 [N, H, W];
`shelf.json`, written last, with a checksum of each case. Pictures that are all grey are stored with one channel.
"""

import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from preceptor.data.case import Case
from preceptor.data.masks import resize_mask
from preceptor.data.readers import read_image, read_mask
from preceptor.data.transforms import Preprocessing, is_grey
from preceptor.errors import DataError, StorageError, UserError
from preceptor.storage import hash_json, read_json, replacing, write_json

VERSION = 1
DECODERS = 2
AHEAD = 8
SPARE = 64 * 2**20
"""Free bytes that a build leaves on the disk."""
VERIFIED = 2**30
"""Bytes that are read to verify a shelf when it is opened; of a larger one, evenly spaced cases."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done, with its size)."""

Classes = Callable[[np.ndarray, Path], np.ndarray]
"""From a stored mask, and its file for errors, to class indices uint8 at the network's size."""


@dataclass(frozen=True)
class Shelf:
    """The prepared arrays of `cases`, in their order. Opened lazily, cheap to send to another process."""

    folder: Path
    cases: tuple[Case, ...]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.cases)

    @cached_property
    def stored(self) -> np.ndarray:
        """Read-only float32 [N, C or 1, H, W], before augmentation; 1 where every picture is grey."""
        return np.load(self.folder / "images.npy", mmap_mode="r")

    @cached_property
    def images(self) -> np.ndarray:
        """Read-only float32 [N, C, H, W] with all channels."""
        count, _, height, width = self.stored.shape
        return np.broadcast_to(self.stored, (count, self.preprocessing.channels, height, width))

    @cached_property
    def masks(self) -> np.ndarray | None:
        """Read-only uint8 [N, H, W], class indices; None where the cases have no masks."""
        path = self.folder / "masks.npy"
        return np.load(path, mmap_mode="r") if self.cases[0].mask is not None else None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "cases": self.cases, "preprocessing": self.preprocessing}


def shelf_bytes(count: int, preprocessing: Preprocessing) -> int:
    """Bytes on the disk of a shelf of `count` cases; a third of it where three-channel pictures are all grey."""
    height, width = preprocessing.size
    return count * height * width * (4 * preprocessing.channels + 1)


def build_shelf(
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    labels: Mapping[str, Any],
    mask_rule: str,
    folder: Path | str,
    progress: Progress | None = None,
    ignore: Sequence[int] = (),
) -> Shelf:
    """The shelf of `cases` below `folder`: opened where a sound one exists, built otherwise.

    labels, mask_rule, ignore: as in the recipe. Changed files, order, or settings give another shelf; a damaged one is
    built again. Raises DataError that names case and file where one cannot be read, has no mask while others do, or
    has a mask of another shape; StorageError where the disk has too little space.
    """
    cases = tuple(cases)
    if not cases:
        raise DataError("there are no cases to prepare", remedy="check the splits with `preceptor check`")
    without = [case.name for case in cases if case.mask is None]
    if without and len(without) < len(cases):
        raise DataError("some cases have no mask", offenders=without, remedy="give them masks or leave them out")
    place = Path(folder) / _key(cases, preprocessing, labels, mask_rule, ignore)

    def classes(mask: np.ndarray, where: Path) -> np.ndarray:
        return resize_mask(mask, preprocessing.size, labels, mask_rule, where, ignore)

    shelf = Shelf(place, cases, preprocessing)
    if not is_sound(shelf):
        report = progress or (lambda done, total, what: None)
        size = shelf_bytes(len(cases), preprocessing)
        _require_space(place, size)
        what = f"decode and resize {len(cases)} cases, at most {size / 2**20:.1f} MiB"
        report(0, len(cases), what)
        try:
            _write(shelf, classes, 1, report, what)
        except _ColouredError:
            _write(shelf, classes, preprocessing.channels, report, what)
    return shelf


def is_sound(shelf: Shelf) -> bool:
    """Whether the shelf is complete and its checksums hold."""
    try:
        facts = read_json(shelf.folder / "shelf.json")
        probe = Shelf(shelf.folder, shelf.cases, shelf.preprocessing)
        sums, count = facts["checksums"], len(shelf)
        if len(sums) != count or probe.stored.shape[0] != count:
            return False
        step = max(1, -(-probe.stored.nbytes // VERIFIED))
        return all(_checksum(*_row(probe, number)) == sums[number] for number in range(0, count, step))
    except (StorageError, OSError, ValueError, KeyError, TypeError, EOFError):
        return False


def _row(shelf: Shelf, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    return shelf.stored[number], None if shelf.masks is None else shelf.masks[number]


def _checksum(image: np.ndarray, mask: np.ndarray | None) -> int:
    start = zlib.crc32(np.ascontiguousarray(image).data)
    return start if mask is None else zlib.crc32(np.ascontiguousarray(mask).data, start)


def _key(
    cases: Sequence[Case], preprocessing: Preprocessing, labels: Mapping[str, Any], rule: str, ignore: Sequence[int]
) -> str:
    content = [VERSION, preprocessing.to_dict(), list(labels.items()), rule, *([list(ignore)] if ignore else [])]
    content += [[_state(case, case.image), _state(case, case.mask), case.slice] for case in cases]
    return hash_json(content)[:24]


def _state(case: Case, path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"case {case.name} has a file that cannot be read", where=path, found=error.strerror) from error
    return [str(path), status.st_size, status.st_mtime_ns]


def _require_space(place: Path, size: int) -> None:
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size + SPARE:
        raise StorageError(
            "the disk has too little space for the prepared images",
            where=place,
            found=f"{free / 2**20:.0f} MiB free",
            expected=f"{(size + SPARE) / 2**20:.0f} MiB",
            remedy="free space, choose a smaller data.image_size, or put the run on another disk",
        )


class _ColouredError(Exception):
    """A coloured picture turned up while one channel was being stored for each."""


def _write(shelf: Shelf, classes: Classes, channels: int, report: Progress, what: str) -> None:
    height, width = shelf.preprocessing.size
    count, masked = len(shelf), shelf.cases[0].mask is not None
    narrow = channels < shelf.preprocessing.channels
    sums: list[int] = []
    with ExitStack() as stack:
        images = _opened(stack, shelf.folder / "images.npy", (count, channels, height, width), "<f4")
        masks = _opened(stack, shelf.folder / "masks.npy", (count, height, width), "|u1") if masked else None
        for image, mask in _prepared(shelf, classes):
            if narrow and len(image) > 1:
                raise _ColouredError
            image = np.broadcast_to(image, (channels, height, width))
            images.write(image.tobytes())
            if masks is not None and mask is not None:
                masks.write(mask.tobytes())
            sums.append(_checksum(image, mask))
            report(len(sums), count, what)
    write_json(shelf.folder / "shelf.json", {"version": VERSION, "checksums": sums})


def _opened(stack: ExitStack, path: Path, shape: tuple[int, ...], kind: str) -> BinaryIO:
    """A file of the array format, open behind its header. Plain writes: a full disk kills who writes to a mapping."""
    file = stack.enter_context(stack.enter_context(replacing(path)).open("wb"))
    npy.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file


def _prepared(shelf: Shelf, classes: Classes) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Image [C or 1, H, W] and mask [H, W] of each case, in order, decoded a few cases ahead by threads."""
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        try:
            for case in shelf.cases:
                waiting.append(pool.submit(_prepare, case, shelf.preprocessing, classes))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def require_volume(case: Case, preprocessing: Preprocessing) -> None:
    """Raise DataError where an image is to be scaled by its volume, but the volume's slices are files of their own."""
    if preprocessing.by_volume and case.volume is not None and case.slice is None:
        raise DataError(
            "a slice in a file of its own does not tell its volume's values",
            found=f"data.normalize: {preprocessing.normalize}",
            expected="none, where the slices were scaled volume by volume before they were saved; else unit or zscore",
            remedy="set data.normalize",
        )


def _prepare(case: Case, preprocessing: Preprocessing, classes: Classes) -> tuple[np.ndarray, np.ndarray | None]:
    path = case.image
    try:
        require_volume(case, preprocessing)
        picture = read_image(path, case.slice)
        if is_grey(picture.pixels) and preprocessing.channels in (1, 3):
            single = picture.pixels if picture.pixels.ndim == 2 else picture.pixels[..., 0]
            picture, preprocessing = replace(picture, pixels=single), replace(preprocessing, channels=1)
        image = preprocessing.apply(picture, where=path).numpy()
        if case.mask is None:
            return image, None
        path = case.mask
        mask = read_mask(path, case.slice).pixels
        if mask.shape[:2] != picture.pixels.shape[:2]:
            raise DataError("image and mask differ in shape", found=mask.shape[:2], expected=picture.pixels.shape[:2])
        return image, classes(mask, path)
    except UserError as error:
        raise DataError(
            f"case {case.name} cannot be prepared: {error.what}",
            where=error.where or path,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
            offenders=error.offenders,
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"case {case.name} cannot be read",
            where=path,
            found=str(error),
            remedy="open the file in a viewer; copy it again or remove the case",
        ) from error
