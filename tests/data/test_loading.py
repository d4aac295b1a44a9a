"""Claims about batches: exact order, exact resume, equal shares, and reports that fit their images."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from preceptor.data.case import Case
from preceptor.data.loading import Batch, EvaluationLoader, TrainingLoader, epoch_batches
from preceptor.data.shelf import Shelf, build_shelf
from preceptor.data.transforms import Preprocessing
from preceptor.errors import DataError, RecipeError, TrainingError
from preceptor.recipe_data import AugmentRecipe

AUGMENT = AugmentRecipe(zoom=[0.5, 0.9, 1.2], rotate=10, flip_horizontal=0.5, gamma=0.2, noise=0.1, brightness=0.1)
PLAIN = AugmentRecipe(zoom=[0, 1, 1])


class Words:
    """Features that are the words themselves, so that a test can read them back."""

    def batch(self, texts: Sequence[str]) -> torch.Tensor:
        codes = [[ord(letter) for letter in text.ljust(80)[:80]] for text in texts]
        return torch.tensor(codes, dtype=torch.float32)[..., None]

    @staticmethod
    def read(row: torch.Tensor) -> str:
        return "".join(chr(int(code)) for code in row[:, 0]).strip()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Eleven cases, each bright on the side that its report names."""
    folder = tmp_path_factory.mktemp("loading")
    cases = []
    for n in range(11):
        pixels = np.random.default_rng(n).integers(0, 60, (16, 16)).astype(np.uint8)
        side = slice(8, 16) if n % 2 else slice(0, 8)  # the patient's left is on the right of the image
        pixels[:, side] += 150
        Image.fromarray(pixels).save(folder / f"{n}.png")
        Image.fromarray((pixels > 100).astype(np.uint8)).save(folder / f"m{n}.png")
        words = f"One infected area, {'left' if n % 2 else 'right'} lung."
        cases.append(Case(f"c{n}", folder / f"{n}.png", folder / f"m{n}.png", "train", report=words))
    return build_shelf(cases, Preprocessing((16, 16), 3), {"background": 0, "bright": 1}, "exact", folder / "cache")


def loader(shelf: Shelf, **changes: object) -> TrainingLoader:
    settings: dict = {"readers": {"report": Words()}, "augment": AUGMENT, "batch_size": 4, "seed": 3} | changes
    return TrainingLoader(shelf, **settings)


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    def equal(a: Batch, b: Batch) -> bool:
        assert a.mask is not None
        assert b.mask is not None
        tensors = ((a.image, b.image), (a.mask, b.mask), (a.shown["report"], b.shown["report"]))
        return a.cases == b.cases and all(torch.equal(x, y) for x, y in tensors)

    return len(ours) == len(theirs) and all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_batch_has_the_documented_shapes_and_types(shelf: Shelf) -> None:
    batch = next(iter(loader(shelf)))
    assert batch.image.shape == (4, 3, 16, 16)
    assert batch.image.dtype == torch.float32
    assert batch.mask is not None
    assert batch.mask.shape == (4, 16, 16)
    assert batch.mask.dtype == torch.int64
    assert batch.shown["report"].shape == (4, 80, 1)
    assert len(batch.cases) == 4
    assert batch.to("meta").mask.device.type == "meta"  # type: ignore[union-attr]


def test_every_case_is_seen_once_an_epoch_in_an_order_of_seed_and_epoch(shelf: Shelf) -> None:
    runs = loader(shelf)
    orders = []
    for epoch in range(3):
        runs.set_epoch(epoch)
        orders.append([name for batch in runs for name in batch.cases])
        assert sorted(orders[-1]) == sorted(case.name for case in shelf.cases)
    assert orders[0] != orders[1] != orders[2]
    assert [name for batch in loader(shelf) for name in batch.cases] == orders[0]
    assert [name for batch in loader(shelf, seed=4) for name in batch.cases] != orders[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumed_in_mid_epoch_goes_on_exactly(shelf: Shelf, workers: int) -> None:
    whole = loader(shelf, workers=workers)
    expected = [list(whole), list(whole)]
    for stop in range(4):
        first = loader(shelf, workers=workers)
        taken = list(islice(first, stop))
        resumed = loader(shelf, workers=workers)
        resumed.load_state_dict(first.state_dict())
        resumed.set_epoch(resumed.state_dict()["epoch"])
        rest = list(resumed) if stop < 3 else []
        assert same(taken + rest, expected[0])
        resumed.set_epoch(1)
        assert same(list(resumed), expected[1])


def test_workers_change_nothing_but_speed(shelf: Shelf) -> None:
    alone, helped = loader(shelf), loader(shelf, workers=2)
    for epoch in range(3):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        assert same(list(alone), list(helped))


def test_a_finished_epoch_is_followed_by_the_next_and_another_epoch_begins_anew(shelf: Shelf) -> None:
    one = loader(shelf)
    list(one)
    assert one.state_dict() == {"epoch": 0, "position": 3}
    next(iter(one))
    assert one.state_dict() == {"epoch": 1, "position": 1}
    one.set_epoch(1)
    assert one.state_dict() == {"epoch": 1, "position": 1}
    one.set_epoch(2)
    assert one.state_dict() == {"epoch": 2, "position": 0}


@pytest.mark.parametrize(("count", "world", "size"), [(11, 2, 4), (11, 3, 2), (5, 4, 2), (9, 2, 2), (2, 3, 4)])
def test_processes_get_equally_many_batches_of_equal_sizes_and_miss_no_case(count: int, world: int, size: int) -> None:
    shares = [epoch_batches(count, size, 0, 0, rank, world) for rank in range(world)]
    shapes = [[len(batch) for batch in share] for share in shares]
    assert all(shape == shapes[0] for shape in shapes)
    seen = Counter(index for share in shares for batch in share for index in batch)
    assert set(seen) == set(range(count))
    assert sum(seen.values()) - count < world


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(11, 4, [4, 4, 3]), (9, 4, [4, 5]), (3, 8, [3]), (1, 8, [1]), (3, 1, [1, 1, 1]), (8, 4, [4, 4])],
)
def test_a_last_batch_is_kept_and_a_single_case_joins_the_one_before(count: int, size: int, lengths: list[int]) -> None:
    assert [len(batch) for batch in epoch_batches(count, size, 0, 0)] == lengths


def test_a_flipped_image_comes_with_its_mirrored_report(shelf: Shelf) -> None:
    words = set()
    for batch in islice(iter(loader(shelf, augment=AugmentRecipe(zoom=[0, 1, 1], flip_horizontal=0.5))), 3):
        for image, row, name in zip(batch.image, batch.shown["report"], batch.cases, strict=True):
            report = Words.read(row)
            bright_on_the_right = float(image[0, :, 8:].mean()) > 0
            assert ("left lung" in report) == bright_on_the_right, (name, report)
            words.add((int(name[1:]) % 2, report))
    assert len(words) == 4


def test_images_do_not_depend_on_whether_reports_are_shown(shelf: Shelf) -> None:
    for rule in ("rewrite", "forbid"):
        augment = AugmentRecipe(flip_horizontal=0.5, reports=rule)
        shown = list(loader(shelf, augment=augment))
        hidden = list(loader(shelf, augment=augment, readers={}))
        assert all(not b.shown for b in hidden)
        assert all(torch.equal(a.image, b.image) for a, b in zip(shown, hidden, strict=True))


def test_evaluation_is_in_order_unchanged_and_may_show_other_texts(shelf: Shelf) -> None:
    batches = list(EvaluationLoader(shelf, {"report": Words()}, 4))
    assert [len(batch.cases) for batch in batches] == [4, 4, 3]
    assert [name for batch in batches for name in batch.cases] == [case.name for case in shelf.cases]
    np.testing.assert_array_equal(torch.cat([batch.image for batch in batches]).numpy(), shelf.images)
    assert Words.read(batches[0].shown["report"][1]) == shelf.cases[1].report
    probe = list(EvaluationLoader(shelf, {"report": Words()}, 4, texts=[f"other {n}" for n in range(11)]))
    assert Words.read(probe[1].shown["report"][0]) == "other 4"


def test_evaluation_works_without_masks_and_training_refuses(shelf: Shelf, tmp_path: Path) -> None:
    bare = [Case(case.name, case.image) for case in shelf.cases]
    without = build_shelf(bare, shelf.preprocessing, {}, "exact", tmp_path)
    assert next(iter(EvaluationLoader(without, {}, 4))).mask is None
    with pytest.raises(DataError, match="needs masks"):
        loader(without)


def test_only_square_images_are_transposed_or_turned(shelf: Shelf, tmp_path: Path) -> None:
    labels = {"background": 0, "bright": 1}
    oblong = build_shelf(shelf.cases, Preprocessing((16, 24), 1), labels, "exact", tmp_path)
    for key in ("transpose", "rot_flip"):
        with pytest.raises(RecipeError, match=rf"(?s)augment\.{key}.*square"):
            loader(oblong, augment=AugmentRecipe.model_validate({key: 0.5}))


class _Deadly(Words):
    """Dies as a process that the system kills for its memory."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def batch(self, texts: Sequence[str]) -> torch.Tensor:
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(texts)


def test_a_killed_worker_is_told_with_its_cases_and_advice(shelf: Shelf) -> None:
    with pytest.raises(TrainingError, match="died") as caught:
        list(loader(shelf, workers=2, readers={"report": _Deadly()}))
    assert "memory" in str(caught.value)
    assert "training.workers" in str(caught.value)
    assert set(caught.value.offenders) <= {case.name for case in shelf.cases}
    assert caught.value.offenders


class _Faulty(Words):
    def batch(self, texts: Sequence[str]) -> torch.Tensor:
        raise DataError("no features for this report", found=texts[0], remedy="run embed")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_reaches_the_user_as_it_is(shelf: Shelf, workers: int) -> None:
    with pytest.raises(DataError, match="no features") as caught:
        list(loader(shelf, workers=workers, readers={"report": _Faulty()}))
    assert caught.value.remedy == "run embed"
    assert "Traceback" not in str(caught.value)


def test_each_condition_is_made_of_its_own_words_and_both_follow_a_flip(shelf: Shelf) -> None:
    """A report teacher and an attributes teacher may learn from one batch; attributes come from a table here."""
    cases = tuple(
        replace(case, attributes=f"left upper {n % 2}, right upper {1 - n % 2}") for n, case in enumerate(shelf.cases)
    )
    ours = replace(shelf, cases=cases)
    augment = AugmentRecipe(zoom=[0, 1, 1], flip_horizontal=0.5)
    batches = list(loader(ours, augment=augment, readers={"report": Words(), "attributes": Words()}))
    seen = set()
    for batch in batches:
        for image, report, facts in zip(batch.image, batch.shown["report"], batch.shown["attributes"], strict=True):
            on_the_right = float(image[0, :, 8:].mean()) > 0
            assert ("left lung" in Words.read(report)) == on_the_right
            assert f"left upper {int(on_the_right)}" in Words.read(facts)
            seen.add(Words.read(facts))
    assert len(seen) == 4, "some are flipped, which changes the order of the words"
    plain = next(iter(EvaluationLoader(ours, {"attributes": Words()}, 4)))
    assert [Words.read(row) for row in plain.shown["attributes"]] == [case.attributes for case in cases[:4]]


def test_an_image_whose_attributes_name_a_side_is_not_transposed(shelf: Shelf) -> None:
    augment = AugmentRecipe(zoom=[0, 1, 1], transpose=1.0)
    bare = replace(shelf, cases=tuple(replace(case, report=None) for case in shelf.cases))
    told = replace(bare, cases=tuple(replace(case, attributes="left upper 1") for case in bare.cases))
    unknown = replace(bare, cases=tuple(replace(case, attributes="") for case in bare.cases))
    turned, kept, free = (next(iter(loader(which, augment=augment, readers={}))) for which in (bare, told, unknown))
    assert turned.cases == kept.cases == free.cases
    assert torch.equal(turned.image, free.image)
    assert torch.equal(turned.image, kept.image.transpose(-1, -2))
    assert not torch.equal(turned.image, kept.image)
