"""Prediction: from pictures to class probabilities at their own size, and from any number of files to masks.

Image in, image out: the network sees what the package's preprocessing makes of a picture, and its probabilities are
resized bilinearly to the picture's own size. Judging uses the same function, so what was measured is what is shipped.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.data.readers import Picture, read_image, volume_slices
from preceptor.data.transforms import Preprocessing
from preceptor.data.volumes import write_label_volume
from preceptor.delivery import writers
from preceptor.delivery.ledger import Ledger, Outputs, PredictionReport
from preceptor.delivery.listing import list_sources
from preceptor.delivery.package import Package
from preceptor.errors import DataError
from preceptor.learning.privilege import PRIVILEGES
from preceptor.segmentors.base import Segmentor
from preceptor.segmentors.base import probabilities as to_probabilities

Precision = Literal["float32", "bf16"]


def segment(
    network: Segmentor,
    preprocessing: Preprocessing,
    pictures: Picture | Sequence[Picture],
    condition: Tensor | None = None,
    *,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    batch_size: int = 8,
) -> list[np.ndarray]:
    """Class probabilities of each picture, float32 [C, H, W] at the picture's own size, C >= 2, summing to 1.

    condition: [N, L, D], one for each picture, where the network needs one. device: where to compute; None: where the
    network is. A batch that is too large for the memory is halved until it fits. Afterwards the network is in the mode
    in which it was. Raises DataError for pictures that cannot be prepared, a missing condition, and too little memory.
    """
    chosen = [pictures] if isinstance(pictures, Picture) else list(pictures)
    if device is not None:
        network = network.to(_device(device))
    images, shapes = [preprocessing.apply(picture) for picture in chosen], [p.geometry.shape for p in chosen]
    return segment_prepared(network, images, shapes, condition, precision=precision, batch_size=batch_size)


def segment_prepared(
    network: Segmentor,
    images: Sequence[Tensor] | Tensor,
    shapes: Sequence[tuple[int, int]],
    condition: Tensor | None = None,
    *,
    precision: Precision = "float32",
    batch_size: int = 8,
) -> list[np.ndarray]:
    """As `segment`, of images [C, h, w] that are prepared already; shapes: (H, W) of each answer."""
    if network.condition is not None and condition is None:
        raise DataError(
            "this network needs more than an image", expected=f"with every image {network.condition.described}"
        )
    small = _Runner(network, precision, batch_size)(list(images), condition)
    return [resize(p, shape).numpy() for p, shape in zip(small, shapes, strict=True)]


def predict_files(
    package: Package,
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    overlays: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    batch_size: int = 8,
    device: str = "auto",
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> PredictionReport:
    """Write a mask for every image of `paths` (files and folders) below `out`, in the image's own format and geometry.

    Masks hold the labels' stored values and keep the images' relative folders; formats: see `writers`. overlays adds
    `out/overlays/*.png` (some slices of a volume), probabilities adds `out/probabilities/*` (.npy [C, H, W] in half
    precision; NIfTI [X, Y, Z, C] where the mask is NIfTI), and `out/predictions.csv` has a row for every image.
    Pictures pass in batches, so memory does not grow with their number; a NIfTI volume is held whole, with its mask.
    A bad file is listed and the others go on. The same command again keeps finished masks; overwrite makes them anew.
    progress: called with (files done, files in all).
    Raises DataError where the package needs more than images, there are none, `out` holds another package's
    predictions, or the device does not exist; StorageError where the disk is full.
    """
    out = Path(out)
    if package.needs != "none":
        raise more_than_images(package)
    total = sum(1 for _ in list_sources(paths, out))
    if total == 0:
        where = ", ".join(str(path) for path in paths) or None
        raise DataError("there is no image to predict", where=where, remedy="name image files, or folders with some")
    network = package.network.to(_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    values = writers.stored_values(package.labels)
    tell = _counting(progress, total)
    with Ledger(
        out, package, overlays=overlays, probabilities=probabilities, overwrite=overwrite, progress=tell
    ) as books:
        predictor = _Predictor(package, _Runner(network, precision, batch_size), values, books)
        batch: list[Outputs] = []
        for source in list_sources(paths, out, books.fail_folder):
            outputs = books.plan(source)
            if outputs is None:
                continue
            with books.failing(source.path):
                slices = volume_slices(source.path)
                if slices is not None:
                    predictor.volume(outputs, slices)
                else:
                    batch.append(outputs)
            if len(batch) == batch_size:
                predictor.pictures(batch)
                batch = []
        predictor.pictures(batch)
    return books.report


def resize(probabilities: Tensor, shape: tuple[int, int]) -> Tensor:
    """Probabilities [C, h, w] at `shape` (H, W), bilinear; smoothed where they are reduced."""
    if probabilities.shape[-2:] == shape:
        return probabilities
    reduced = shape[0] < probabilities.shape[-2] or shape[1] < probabilities.shape[-1]
    return F.interpolate(probabilities[None], shape, mode="bilinear", align_corners=False, antialias=reduced)[0]


def class_map(probabilities: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """The most probable class at `shape` (H, W) of probabilities [C, h, w], as uint8 (uint16 above 256 classes).

    One class is resized at a time, so that the memory does not grow with the number of classes. Ties go to the lower.
    """
    best = resize(probabilities[:1], shape)[0]
    result = torch.zeros(shape, dtype=torch.uint8 if len(probabilities) <= 256 else torch.int32)
    for index in range(1, len(probabilities)):
        rival = resize(probabilities[index : index + 1], shape)[0]
        result[rival > best] = index
        best = torch.maximum(best, rival)
    return result.numpy() if result.dtype == torch.uint8 else result.numpy().astype(np.uint16)


class _Runner:
    """The network over any number of prepared images, in batches that fit the memory."""

    def __init__(self, network: Segmentor, precision: Precision, batch_size: int) -> None:
        self.network, self.precision, self.batch_size = network, precision, max(1, batch_size)
        self.device = next(network.parameters()).device

    def __call__(self, images: Sequence[Tensor], condition: Tensor | None = None) -> list[Tensor]:
        """Probabilities float32 [C, h, w] on the CPU for each image [C_in, h, w]."""
        results: list[Tensor] = []
        training = self.network.training
        self.network.eval()
        try:
            while len(results) < len(images):
                part = slice(len(results), len(results) + self.batch_size)
                try:
                    results += self._forward(
                        torch.stack(list(images[part])), None if condition is None else condition[part]
                    )
                except (MemoryError, RuntimeError) as error:
                    self._smaller(error)
        finally:
            if training:
                self.network.train()
        return results

    @torch.inference_mode()
    def _forward(self, images: Tensor, condition: Tensor | None) -> list[Tensor]:
        images = images.to(self.device, memory_format=torch.channels_last)
        if self.network.condition is None:
            condition = None
        elif condition is not None:
            condition = condition.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.network(images, condition).logits
        return list(to_probabilities(logits).cpu())

    def _smaller(self, error: Exception) -> None:
        """Halve the batch after a lack of memory; raise everything else."""
        words = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in words and "allocate memory" not in words:
            raise error
        if self.batch_size == 1:
            raise DataError(
                "there is not enough memory to predict a single image",
                where=self.device,
                found=words.splitlines()[0] if words else None,
                remedy="close other programs, or use the device cpu",
            ) from error
        self.batch_size //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Predictor:
    """Reads, predicts and writes; what goes wrong with one image is booked, and the others go on."""

    package: Package
    runner: _Runner
    values: np.ndarray
    books: Ledger

    def pictures(self, batch: Sequence[Outputs]) -> None:
        """Two-dimensional files, together through the network."""
        ready: list[tuple[Outputs, Picture, Tensor]] = []
        for outputs in batch:
            with self.books.failing(outputs.image):
                picture = read_image(outputs.image)
                ready.append((outputs, picture, self.package.preprocessing.apply(picture, outputs.image)))
        small = self.runner([prepared for _, _, prepared in ready])
        for (outputs, picture, _), found in zip(ready, small, strict=True):
            with self.books.failing(outputs.image):
                self._picture(outputs, picture, found)

    def _picture(self, outputs: Outputs, picture: Picture, small: Tensor) -> None:
        geometry = picture.geometry
        classes = class_map(small, geometry.shape)
        nifti = geometry.format in writers.VOLUMES
        if outputs.overlay is not None:
            writers.write_png(outputs.overlay, writers.draw_overlay(picture.pixels, classes))
        if outputs.probabilities is not None:
            full = resize(small, geometry.shape).numpy()
            if nifti:
                with writers.probability_volume(outputs.probabilities, outputs.image) as add:
                    add(full)
            else:
                writers.write_probabilities(outputs.probabilities, full)
        if nifti:
            write_label_volume(outputs.mask, classes, outputs.image, self.values)
        else:
            writers.write_mask(outputs.mask, classes, self.values)
        counts = np.bincount(classes.ravel(), minlength=len(self.package.labels))
        self.books.finish(outputs, self._row(picture, counts))

    def volume(self, outputs: Outputs, slices: int) -> None:
        """A volume, slice by slice; the mask is written last, so that it stands for all."""
        classes: list[np.ndarray] = []
        tiles: list[np.ndarray] = []
        shown = set(writers.shown_slices(slices)) if outputs.overlay is not None else set()
        step = self.runner.batch_size
        with contextlib.ExitStack() as stack:
            add = None
            if outputs.probabilities is not None:
                add = stack.enter_context(writers.probability_volume(outputs.probabilities, outputs.image))
            for start in range(0, slices, step):
                pictures = [read_image(outputs.image, index) for index in range(start, min(start + step, slices))]
                small = self.runner([self.package.preprocessing.apply(p, outputs.image) for p in pictures])
                for index, (picture, found) in enumerate(zip(pictures, small, strict=True), start=start):
                    classes.append(class_map(found, picture.geometry.shape))
                    if index in shown:
                        tiles.append(writers.draw_overlay(picture.pixels, classes[-1]))
                    if add is not None:
                        add(resize(found, picture.geometry.shape).numpy())
        if outputs.overlay is not None:
            writers.write_png(outputs.overlay, writers.draw_montage(tiles))
        write_label_volume(outputs.mask, classes, outputs.image, self.values)
        counts = np.sum([np.bincount(part.ravel(), minlength=len(self.package.labels)) for part in classes], axis=0)
        self.books.finish(outputs, {**self._row(picture, counts), "slices": slices})

    def _row(self, picture: Picture, counts: np.ndarray) -> dict[str, Any]:
        geometry = picture.geometry
        row, column = geometry.spacing or ("", "")
        return {
            "format": geometry.format,
            "height": geometry.shape[0],
            "width": geometry.shape[1],
            "spacing_row_mm": row,
            "spacing_column_mm": column,
            "note": writers.NOTES.get(geometry.format, ""),
            **{f"pixels: {name}": int(n) for name, n in zip(self.package.labels, counts, strict=True)},
        }


def more_than_images(package: Package) -> DataError:
    """The refusal of a package that cannot answer from images alone."""
    condition = package.network.condition
    return DataError(
        "this package needs more than an image",
        found=f"its privilege is {package.needs}: it is shown {PRIVILEGES[package.needs].sees}",
        expected=None if condition is None else f"with every image {condition.described}",
        remedy="use the package of a student or control of the same run, which needs the image alone",
    )


def _counting(progress: Callable[[int, int], None] | None, total: int) -> Callable[[], None]:
    """`progress(done, total)` as a function that counts by itself."""
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return tell


def _device(name: str | torch.device) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise DataError("there is no such device", where=name, found=first, expected="cpu, cuda or auto") from error
    return device
