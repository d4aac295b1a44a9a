"""Errors say what, where, what was found and expected, and what to do; and they survive the way between processes."""

import pickle

import pytest

from preceptor.errors import DataError, RecipeError, StorageError, TrainingError, UntrustedFileError, UserError

KINDS = (DataError, RecipeError, StorageError, UntrustedFileError, TrainingError)


def test_message_holds_every_part_in_order():
    error = DataError("the mask is odd", where="case 7", found=3, expected="0 or 1", remedy="remap it", offenders=["a"])
    assert str(error).splitlines() == [
        "case 7: the mask is odd",
        "  found:    3",
        "  expected: 0 or 1",
        "  - a",
        "  remedy:   remap it",
    ]


def test_message_without_parts_is_one_line():
    assert str(DataError("it is broken")) == "it is broken"


def test_found_zero_and_empty_text_are_shown():
    assert "found:    0" in str(DataError("x", found=0))
    assert "found:" in str(DataError("x", found=""))


@pytest.mark.parametrize("count", [19, 20, 21, 500])
def test_first_twenty_offenders_are_listed_and_the_others_counted(count):
    error = DataError("x", offenders=[f"case-{i}" for i in range(count)])
    text = str(error)
    assert text.count("\n  - case-") == min(count, 20)
    assert (f"... and {count - 20} more" in text) == (count > 20)
    assert len(error.offenders) == count


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_user_error_with_exit_code_two(kind):
    assert issubclass(kind, UserError)
    assert kind.exit_code == 2


def test_a_refused_file_is_also_a_storage_error():
    assert issubclass(UntrustedFileError, StorageError)


@pytest.mark.parametrize("kind", KINDS)
def test_error_survives_the_way_from_a_worker_process(kind):
    error = kind("x", where="w", found=1, expected=2, remedy="r", offenders=[1, 2])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - as multiprocessing does between our own processes
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert (copy.what, copy.where, copy.found, copy.expected) == ("x", "w", 1, 2)
    assert (copy.remedy, copy.offenders) == ("r", (1, 2))
