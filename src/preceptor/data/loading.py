"""Batches for training and evaluation, from a shelf.

Order and augmentation are pure functions of (seed, epoch, case index); all that a loader must remember is how many
batches of which epoch it has handed out. So a resumed loader goes on exactly, and workers change nothing but speed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from preceptor.data.augmentation import (
    Draw,
    augment_batch,
    draw_augmentation,
    draw_variant,
    respect_case,
    shown_report,
    stream,
    variant_at,
)
from preceptor.data.shelf import Shelf
from preceptor.errors import DataError, RecipeError, TrainingError, UserError
from preceptor.recipe_data import AugmentRecipe

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


class TextLookup(Protocol):
    """What a network is shown of a text, as `text.features.ReportFeatures` gives its token features."""

    def batch(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, ...], a row a text."""


class MapLookup(Protocol):
    """What the frozen part of a network answered to each variant of each case, as `learning.cache.CachedMaps`."""

    def batch(self, cases: Sequence[int], variants: Sequence[int]) -> tuple[Tensor, ...]:
        """Maps [B, C_k, h_k, w_k], a row a case, by its number on the shelf and the number of its variant."""


@dataclass
class Batch:
    """image: float32 [B, C, H, W]. mask: int64 [B, H, W] or None. cases: names.

    shown: what privileges show of the reports, by kind: "report": float32 [B, L, D], "attributes": [B, D].
    frozen: kept answers to `image` of frozen parts of networks, by their identity: maps [B, C_k, h_k, w_k].
    """

    image: Tensor
    mask: Tensor | None
    cases: list[str]
    shown: dict[str, Tensor] = field(default_factory=dict)
    frozen: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """The batch on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which copies to an accelerator need not wait."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            change(self.image),
            None if self.mask is None else change(self.mask),
            self.cases,
            {kind: change(tensor) for kind, tensor in self.shown.items()},
            {part: tuple(change(maps) for maps in kept) for part, kept in self.frozen.items()},
        )


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The case indices of every batch of one process in one epoch.

    The permutation of (seed, epoch) is dealt to the processes in turn and wraps round, so that all get equally many
    batches of equal sizes. A last batch that is not full is kept; a single left-over case, on which batch
    normalisation cannot train, joins the batch before it.
    """
    order = stream(seed, epoch, 0, purpose=2).permutation(count)
    own = order[np.arange(rank, -(-count // world) * world, world) % count].tolist()
    batches = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


class TrainingLoader:
    """Augmented batches of one epoch after another; iterating goes through what is left of the current epoch.

    readers: what turns reports into conditions, by kind; images and masks are the same with and without.
    frozen: where kept answers of frozen parts are read, by identity; it needs an augmentation of finite `variants`.
    rank, world: of this process. workers: 0 prepares batches in this process; more start that many others.
    An epoch begins with `set_epoch`; without it, the next iteration after a finished epoch is the next epoch, and an
    iteration that was left early is taken up where it stopped.
    Raises RecipeError for transpositions and quarter turns of images that are not square, TrainingError where a worker
    dies.
    """

    def __init__(
        self,
        shelf: Shelf,
        readers: Mapping[str, TextLookup],
        augment: AugmentRecipe,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        frozen: Mapping[str, MapLookup] | None = None,
    ) -> None:
        height, width = shelf.preprocessing.size
        key = "transpose" if augment.transpose > 0 else "rot_flip"
        if (augment.transpose > 0 or augment.rot_flip > 0) and height != width:
            raise RecipeError(
                "only square images can be transposed or turned by a quarter",
                where=f"augment.{key}",
                found=f"images of {height} x {width}",
                remedy=f"set augment.{key} to 0",
            )
        if shelf.masks is None:
            raise DataError("training needs masks, and these cases have none", offenders=[c.name for c in shelf.cases])
        self.batch_size, self.seed, self.rank, self.world, self.workers = batch_size, seed, rank, world, workers
        self.epoch = self.position = 0
        self._maker = _BatchMaker(shelf, readers, augment, batch_size, seed, rank, world, dict(frozen or {}))
        self._length = len(self._maker.plan(0))
        self._loader: DataLoader | None = None

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; the position stays where it is if this epoch is already under way."""
        if epoch != self.epoch or self.position >= len(self):
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Epoch, and the number of its batches handed out so far."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def __iter__(self) -> Iterator[Batch]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        epoch, start = self.epoch, self.position
        for number, batch in enumerate(self._batches(epoch, start), start=start + 1):
            self.epoch, self.position = epoch, number
            yield batch

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        wanted = [(epoch, number) for number in range(start, len(self))]
        if not self.workers:
            yield from (self._maker.make(*item) for item in wanted)
            return
        loader = self._started()
        loader.sampler.wanted = wanted  # type: ignore[attr-defined]
        results, number = iter(loader), start
        while number < len(self):
            try:
                result = next(results)
            except RuntimeError as error:
                raise self._dead_worker(error, epoch, number) from error
            if isinstance(result, UserError):
                raise result
            yield result
            number += 1

    def _started(self) -> "DataLoader":
        from torch.utils.data import DataLoader

        if self._loader is None:
            self._loader = DataLoader(
                self._maker,  # type: ignore[arg-type]
                sampler=_Wanted(),
                batch_size=None,
                num_workers=self.workers,
                persistent_workers=True,
                pin_memory=torch.cuda.is_available(),
            )
        return self._loader

    def _dead_worker(self, error: RuntimeError, epoch: int, number: int) -> Exception:
        if "worker" not in str(error):
            return error
        self._loader = None
        under_way = self._maker.plan(epoch)[number : number + 2 * self.workers]
        names = [self._maker.shelf.cases[index].name for batch in under_way for index in batch]
        return TrainingError(
            "a process that prepares batches died; it was most likely killed for memory",
            where=f"epoch {epoch}, batch {number}",
            found=str(error).splitlines()[0],
            remedy="set training.workers to 0, lower training.batch_size, or give the container more (shared) memory; "
            "the same command then goes on. The cases under way are listed",
            offenders=names,
        )


class _Wanted:
    """A sampler that yields what its loader asks for next, so that worker processes live through all epochs."""

    def __init__(self) -> None:
        self.wanted: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.wanted)

    def __len__(self) -> int:
        return len(self.wanted)


@dataclass
class _BatchMaker:
    """Makes the batch of a given epoch and number, in this or in a worker process."""

    shelf: Shelf
    readers: Mapping[str, TextLookup]
    augment: AugmentRecipe
    batch_size: int
    seed: int
    rank: int
    world: int
    frozen: Mapping[str, MapLookup]
    planned: tuple[int, list[list[int]]] | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        if self.planned is None or self.planned[0] != epoch:
            batches = epoch_batches(len(self.shelf), self.batch_size, self.seed, epoch, self.rank, self.world)
            self.planned = epoch, batches
        return self.planned[1]

    def __getitem__(self, item: tuple[int, int]) -> Batch | UserError:
        try:
            return self.make(*item)
        except UserError as error:  # raised again by the loader: torch would wrap its message in a traceback
            return error

    def make(self, epoch: int, number: int) -> Batch:
        chosen = self.plan(epoch)[number]
        cases = [self.shelf.cases[index] for index in chosen]
        variants = [self.variant(epoch, index) for index in chosen]
        draws = [self.draw(epoch, index, variant) for index, variant in zip(chosen, variants, strict=True)]
        image, mask = take(self.shelf, chosen)
        image, mask = augment_batch(image, mask, draws, self.shelf.preprocessing.resize)
        shown = {
            kind: reader.batch([shown_report(draw, case.words(kind)) for draw, case in zip(draws, cases, strict=True)])
            for kind, reader in self.readers.items()
        }
        batch = _batch(self.shelf, image, mask, [case.name for case in cases], shown)
        batch.frozen = {part: kept.batch(chosen, variants) for part, kept in self.frozen.items()}
        return batch

    def variant(self, epoch: int, index: int) -> int:
        """The number of the variant that a case shows; 0 where the augmentation is endless."""
        return variant_at(self.augment.variants, self.seed, epoch, index) if self.augment.variants else 0

    def draw(self, epoch: int, index: int, variant: int) -> Draw:
        """The change of a case that its report and attributes allow."""
        if self.augment.variants:
            draw = draw_variant(self.augment, variant, index)
        else:
            draw = draw_augmentation(self.augment, self.seed, epoch, index)
        return respect_case(draw, self.shelf.cases[index], self.augment.reports)


class EvaluationLoader:
    """Batches of a shelf in its order, as they are.

    texts: read instead of the cases' own reports and attributes, in the shelf's order, to probe what a teacher reads.
    frozen: as in `TrainingLoader`, of the cases as they are.
    """

    def __init__(
        self,
        shelf: Shelf,
        readers: Mapping[str, TextLookup],
        batch_size: int,
        texts: Sequence[str] | None = None,
        frozen: Mapping[str, MapLookup] | None = None,
    ) -> None:
        self.shelf, self.readers, self.batch_size, self.frozen = shelf, readers, batch_size, dict(frozen or {})
        if texts is not None and len(texts) != len(shelf):
            raise ValueError(f"{len(texts)} texts for {len(shelf)} cases")
        self.texts = {
            kind: [case.words(kind) for case in shelf.cases] if texts is None else list(texts) for kind in readers
        }

    def __len__(self) -> int:
        return -(-len(self.shelf) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.shelf), self.batch_size):
            chosen = list(range(start, min(start + self.batch_size, len(self.shelf))))
            image, mask = take(self.shelf, chosen)
            names = [self.shelf.cases[index].name for index in chosen]
            shown = {
                kind: reader.batch([self.texts[kind][index] for index in chosen])
                for kind, reader in self.readers.items()
            }
            batch = _batch(self.shelf, image, mask, names, shown)
            batch.frozen = {part: kept.batch(chosen, [0] * len(chosen)) for part, kept in self.frozen.items()}
            yield batch


def take(shelf: Shelf, chosen: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Copies of stored images [B, C or 1, H, W] and masks uint8 [B, H, W]."""
    image = torch.from_numpy(shelf.stored[chosen])
    return image, None if shelf.masks is None else torch.from_numpy(shelf.masks[chosen])


def _batch(
    shelf: Shelf,
    image: Tensor,
    mask: Tensor | None,
    names: list[str],
    shown: dict[str, Tensor],
) -> Batch:
    image = image.expand(-1, shelf.preprocessing.channels, -1, -1).contiguous()
    return Batch(image, None if mask is None else mask.long(), names, shown)
