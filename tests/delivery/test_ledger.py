"""A folder of predictions says whose it is, and its table tells what became of every image."""

import csv
import errno
import os
from pathlib import Path

import pytest

from preceptor.delivery.ledger import Ledger
from preceptor.delivery.listing import Source
from preceptor.errors import DataError, StorageError


@pytest.fixture
def book(bright, tmp_path):
    package = bright()

    def make(**changes) -> Ledger:
        settings = {"overlays": False, "probabilities": False, "overwrite": False, **changes}
        return Ledger(tmp_path / "out", settings.pop("package", package), **settings)

    return make


def source(tmp_path: Path, name: str = "images/a.png") -> Source:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return Source(path, Path("."))


def finish(book: Ledger, outputs) -> None:
    for path in outputs.all:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"y")
    book.finish(outputs, {"height": 3, "pixels: lesion": 2})


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_finished_images_are_kept_with_their_facts_when_the_command_is_given_again(book, tmp_path):
    image = source(tmp_path)
    with book() as first:
        finish(first, first.plan(image))
    with book() as second:
        assert second.plan(image) is None
    assert [row["status"] for row in table(tmp_path / "out")] == ["kept"]
    assert table(tmp_path / "out")[0]["pixels: lesion"] == "2"
    assert len(second.report.kept) == 1


@pytest.mark.parametrize("changes", [{"overwrite": True}, {"overlays": True}, {"probabilities": True}])
def test_images_are_done_again_when_more_is_asked_for(book, tmp_path, changes):
    image = source(tmp_path)
    with book() as first:
        finish(first, first.plan(image))
    with book(**changes) as second:
        assert second.plan(image) is not None


def test_changed_image_is_done_again(book, tmp_path):
    image = source(tmp_path)
    with book() as first:
        finish(first, first.plan(image))
    later = (tmp_path / "out" / "a.png").stat().st_mtime + 10
    os.utime(image.path, (later, later))
    with book() as second:
        assert second.plan(image) is not None


def test_masks_of_two_packages_never_mix(book, bright, tmp_path):
    with book():
        pass
    other = bright(labels={"background": 0, "a": 1, "b": 2}, folder="other")
    with pytest.raises(DataError, match="the predictions of another package"), book(package=other):
        pass
    with book(package=other, overwrite=True):
        pass
    with pytest.raises(DataError, match="the predictions of another package"), book():
        pass


def test_file_of_somebody_else_is_not_overwritten(book, tmp_path):
    image = source(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("precious")
    with book() as ledger:
        assert ledger.plan(image) is None
    assert "exists already" in ledger.report.failed[0][1]
    assert (tmp_path / "out" / "a.png").read_text() == "precious"


def test_mask_never_lands_among_the_images(book, tmp_path):
    with book(overwrite=True) as ledger:
        assert ledger.plan(source(tmp_path, "out/a.png")) is None
        assert ledger.plan(source(tmp_path, "out/a.jpg")) is None
    assert all("the mask would lie among the images" in message for _, message in ledger.report.failed)
    assert (tmp_path / "out" / "a.png").read_bytes() == b"x"


def test_two_images_with_one_mask_name_are_told_apart(book, tmp_path):
    with book() as ledger:
        assert ledger.plan(source(tmp_path, "images/a.png")) is not None
        assert ledger.plan(source(tmp_path, "images/a.jpg")) is None
    path, message = ledger.report.failed[0]
    assert path.name == "a.jpg"
    assert str(tmp_path / "images" / "a.png") in message


def test_table_of_an_interrupted_run_holds_what_was_finished(book, tmp_path):
    def interrupted() -> None:
        with book() as ledger:
            finish(ledger, ledger.plan(source(tmp_path)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [row["status"] for row in table(tmp_path / "out")] == ["done"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.png",
        "predictions.csv",
        "predictions.json",
    ]


def test_errors_of_an_image_are_booked_and_a_full_disk_is_not(book, tmp_path):
    image = tmp_path / "a.png"

    def full() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise StorageError("the file could not be written") from error

    with book() as ledger:
        with ledger.failing(image):
            raise DataError("odd", where=image)
        with ledger.failing(image):
            raise MemoryError
        with pytest.raises(StorageError), ledger.failing(image):
            full()
        with pytest.raises(ZeroDivisionError), ledger.failing(image):
            1 / 0  # noqa: B018
    assert [message.splitlines()[0] for _, message in ledger.report.failed] == [
        "odd",
        "there is not enough memory for this image",
    ]


def test_name_that_is_no_text_gets_into_the_table(book, tmp_path):
    image = source(tmp_path, os.fsdecode(b"images/scan-\xff.png"))
    with book() as ledger:
        finish(ledger, ledger.plan(image))
    assert table(tmp_path / "out")[0]["image"].endswith("scan-\\udcff.png")
