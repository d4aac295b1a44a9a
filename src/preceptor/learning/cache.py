"""Frozen features on disk: what the part of a network that never learns answers to a case's variants, computed once.

    <folder>/<identity of the frozen part>/<key>.safetensors   the maps "0", "1", ... of one image

A key is a hash of the image and of what augmentation does to it. So seeds, arms, runs and splits share what they have
in common, and nothing that has changed is ever read. Every file is whole or not there: a killed filling goes on.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preceptor.data.augmentation import Draw, augment_batch, draw_variant, respect_case
from preceptor.data.loading import take
from preceptor.data.shelf import VERIFIED, Shelf
from preceptor.errors import StorageError, TrainingError
from preceptor.recipe_data import AugmentRecipe
from preceptor.segmentors.base import Segmentation, Segmentor
from preceptor.storage import hash_json, read_tensors, write_tensors

VERSION = 1
"""Raised when the same key could mean another image."""

Keys = tuple[tuple[str, ...], ...]
"""Of each case the key of each of its variants."""


@dataclass(frozen=True)
class FeatureStore:
    """The kept maps of one frozen part. folder: of this part and type. shapes: (C, h, w) of each map of an image.

    kind: float16, or float32 where nothing may be lost.

    A file is checked when a process first reads it. Cheap to send to another process.
    """

    folder: Path
    shapes: tuple[tuple[int, int, int], ...]
    kind: torch.dtype = torch.float16
    checked: set[str] = field(default_factory=set, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "shapes": self.shapes, "kind": self.kind, "checked": set()}

    @property
    def bytes_each(self) -> int:
        """Bytes of the maps of one image."""
        return self.kind.itemsize * sum(prod(shape) for shape in self.shapes)

    def path(self, key: str) -> Path:
        """The file of an image's maps."""
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> tuple[Tensor, ...]:
        """Maps [C, h, w] of the store's type, mapped from the file and not copied.

        Raises StorageError where the file is not there, or is damaged; a damaged one is removed.
        """
        path = self.path(key)
        if not path.is_file():
            raise _lost(path, "are gone")
        try:
            tensors, metadata = read_tensors(path)
            maps = tuple(tensors[str(number)] for number in range(len(self.shapes)))
        except (StorageError, KeyError) as error:
            path.unlink(missing_ok=True)
            raise _lost(path, "are damaged, and were removed") from error
        fits = [(part.dtype, tuple(part.shape)) for part in maps] == [(self.kind, own) for own in self.shapes]
        if not fits or (key not in self.checked and metadata.get("checksum") != _checksum(maps)):
            path.unlink(missing_ok=True)
            raise _lost(path, "are damaged, and were removed")
        self.checked.add(key)
        return maps

    def write(self, key: str, maps: Sequence[Tensor], case: str) -> None:
        """Keep the maps [C, h, w] of an image of `case`.

        Raises TrainingError where the store's type cannot hold them, StorageError where the disk is full.
        """
        kept = tuple(part.to(self.kind).cpu() for part in maps)
        shapes = tuple(tuple(part.shape) for part in kept)
        if shapes != self.shapes:
            raise ValueError(f"frozen_maps gives {shapes}, and frozen_shapes tells {self.shapes}")
        if not all(part.isfinite().all() for part in kept):
            largest = max(part.abs().max().item() for part in maps)
            raise TrainingError(
                f"the frozen features do not fit {str(self.kind).removeprefix('torch.')}",
                where=case,
                found=f"values up to {largest:.3g}",
                expected=f"finite values up to {torch.finfo(self.kind).max:.5g}",
                remedy="set cache.enabled=false, or look at the frozen network's weights where values are not finite",
            )
        tensors = {str(number): part for number, part in enumerate(kept)}
        write_tensors(self.path(key), tensors, {"checksum": _checksum(kept)})

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those that are not there, or not sound: all are read up to a total, and of more evenly spaced ones."""
        step = max(1, -(-len(keys) * self.bytes_each // VERIFIED))
        return [key for number, key in enumerate(keys) if not self._holds(key, number % step == 0)]

    def _holds(self, key: str, verify: bool) -> bool:
        if not self.path(key).is_file():
            return False
        try:
            return not verify or bool(self.read(key))
        except StorageError:
            return False


@dataclass(frozen=True)
class CachedMaps:
    """The kept maps of the cases of a shelf, as loaders ask for them."""

    store: FeatureStore
    keys: Keys

    def batch(self, cases: Sequence[int], variants: Sequence[int]) -> tuple[Tensor, ...]:
        """float16 maps [B, C_k, h_k, w_k] of these variants of these cases of the shelf. Raises StorageError."""
        rows = [self.store.read(self.keys[case][variant]) for case, variant in zip(cases, variants, strict=True)]
        if len(rows) == 1:  # large maps come alone; they need no second copy
            return tuple(part[None] for part in rows[0])
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def _lost(path: Path, how: str) -> StorageError:
    remedy = "give the same command again: it computes them anew and goes on"
    return StorageError(f"kept features {how}", where=path, remedy=remedy)


def _checksum(maps: Sequence[Tensor]) -> str:
    value = 0
    for part in maps:
        value = zlib.crc32(part.contiguous().numpy().data, value)
    return str(value)


class Remembering(Segmentor):
    """A network that reads the maps of its frozen part from a store, and keeps there what it has to compute.

    Its answers are those of the network where the store is of float32.
    """

    def __init__(self, network: Segmentor, store: FeatureStore) -> None:
        super().__init__()
        self.network, self.store, self.condition = network, store, network.condition
        self.in_channels, self.classes, self.divisor = network.in_channels, network.classes, network.divisor
        self.taps = network.taps

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """As the base says."""
        rows = [self._maps(single) for single in image.split(1)]
        maps = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        return self.network.classify(maps, condition, (image.shape[-2], image.shape[-1]))

    def _maps(self, image: Tensor) -> list[Tensor]:
        key = hash_json([VERSION, _content(image.cpu().contiguous().numpy())])[:32]
        if not self.store.path(key).is_file():
            self.store.write(key, [part[0] for part in self.network.frozen_maps(image)], "an image that is judged")
        return [part[None].to(image.device) for part in self.store.read(key)]


def variants_of(shelf: Shelf, augment: AugmentRecipe) -> list[list[Draw]]:
    """The fixed variants of each case, as a training loader shows them."""
    return [
        [
            respect_case(draw_variant(augment, variant, index), case, augment.reports)
            for variant in range(augment.variants)
        ]
        for index, case in enumerate(shelf.cases)
    ]


def keys_of(shelf: Shelf, draws: Sequence[Sequence[Draw]]) -> Keys:
    """The key of each variant of each case; changes that come to the same have the same."""
    return tuple(
        tuple(hash_json([VERSION, shelf.preprocessing.resize, image, _change(draw)])[:32] for draw in own)
        for image, own in zip(map(_content, shelf.images), draws, strict=True)
    )


def _content(image: Any) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _change(draw: Draw) -> dict[str, Any]:
    """A draw as plain values, without the seed of noise that there is none of, and without negative zeros."""
    plain = asdict(draw) | ({} if draw.noise else {"noise_seed": 0})
    down, right = plain.pop("shift")
    return {name: value + 0 for name, value in {**plain, "down": down, "right": right}.items()}


def fill(
    store: FeatureStore,
    network: Segmentor,
    shelf: Shelf,
    draws: Sequence[Sequence[Draw]],
    keys: Keys,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> None:
    """Compute and keep what is missing of these variants, in float32.

    Image by image: in a batch an answer depends on its neighbours in the last digit, and a filling that goes on would
    keep others than one that was never stopped. network: on `device`, in eval mode. draws, keys: see `variants_of` and
    `keys_of`. Another process that fills the same store is waited for.
    """
    places = {key: (case, draws[case][place]) for case, own in enumerate(keys) for place, key in enumerate(own)}
    with _alone(store.folder):
        left = store.missing(list(places))
        done = len(places) - len(left)
        progress(done, len(places))
        for number, key in enumerate(left, start=done + 1):
            case, draw = places[key]
            image, _ = augment_batch(take(shelf, [case])[0], None, [draw], shelf.preprocessing.resize)
            image = image.expand(-1, shelf.preprocessing.channels, -1, -1).contiguous()
            with torch.no_grad():
                maps = network.frozen_maps(image.to(device))
            store.write(key, [part[0] for part in maps], shelf.cases[case].name)
            progress(number, len(places))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time fills a folder; what a killed one left half-written is removed."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        raise StorageError(
            "the folder of kept features cannot be made or written",
            where=folder,
            found=error.strerror,
            remedy="set cache.folder to one that can, or cache.enabled=false",
        ) from error
    try:
        for rest in folder.glob(".*.partial"):
            rest.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
