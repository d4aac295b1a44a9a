"""A file with its final name is complete; what is read cannot execute, escape or explode."""

import errno
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor import storage
from preceptor.errors import StorageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with storage.replacing(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["file.txt"]


def fail_after_writing(path: Path, error: BaseException) -> None:
    path.write_text("new")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, error):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), storage.replacing(target) as temporary:
        fail_after_writing(temporary, error())
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_killed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    program = (
        "import os, signal, sys; from preceptor.storage import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('new'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode != 0
    assert target.read_text() == "old"


def test_written_file_has_the_usual_permissions(tmp_path):
    previous = os.umask(0o027)
    try:
        storage.write_text(tmp_path / "file.txt", "x")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_longest_possible_name_can_be_written(tmp_path):
    storage.write_bytes(tmp_path / ("n" * 255), b"x")
    assert names(tmp_path) == ["n" * 255]


def test_folder_in_the_place_of_the_file_is_reported(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        storage.write_text(tmp_path / "taken", "x")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        storage.write_text(tmp_path / "file" / "below", "x")


def test_text_has_plain_line_ends_and_utf8(tmp_path):
    storage.write_text(tmp_path / "a.txt", "ä\nb")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\nb"


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def test_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "out" / "package"
    for text in ("one", "two"):
        with storage.replacing_folder(target, "mark") as temporary:
            fill(temporary, mark="m", **{text: text})
    assert names(target) == ["mark", "two"]
    assert names(target.parent) == ["package"]


def test_failed_folder_leaves_the_old_one(tmp_path):
    target = tmp_path / "package"
    with storage.replacing_folder(target, "mark") as temporary:
        fill(temporary, mark="old")
    with pytest.raises(ValueError, match="x"), storage.replacing_folder(target, "mark") as temporary:
        fail_after_writing(temporary / "mark", ValueError("x"))
    assert (target / "mark").read_text() == "old"
    assert names(tmp_path) == ["package"]


def test_folder_that_cannot_take_its_name_brings_the_old_one_back(tmp_path, monkeypatch):
    target = tmp_path / "package"
    with storage.replacing_folder(target, "mark") as temporary:
        fill(temporary, mark="old")
    rename = Path.rename

    def refuse(self, goal):
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="Input/output"), storage.replacing_folder(target, "mark") as temporary:
        fill(temporary, mark="new")
    assert (target / "mark").read_text() == "old"
    assert names(tmp_path) == ["package"]


def test_folder_left_aside_by_a_power_cut_comes_back(tmp_path):
    (tmp_path / ".package.previous").mkdir()
    fill(tmp_path / ".package.previous", mark="old")
    with (
        pytest.raises(ValueError, match="x"),
        storage.replacing_folder(tmp_path / "package", "mark"),
    ):
        raise ValueError("x")
    assert (tmp_path / "package" / "mark").read_text() == "old"


def test_folder_of_something_else_is_never_replaced(tmp_path):
    fill(tmp_path, precious="data")
    with pytest.raises(StorageError, match="nothing that may be replaced"), storage.replacing_folder(tmp_path, "mark"):
        pass
    assert (tmp_path / "precious").read_text() == "data"


def test_json_reads_back_and_has_no_nan(tmp_path):
    value = {
        "a": [1, 2.5, None, True, "ü"],
        "nan": math.nan,
        "inf": [math.inf],
        "numpy": np.float32(0.5),
        "array": np.array([[1, 2], [3, 4]]),
        "tensor": torch.tensor([1.0, math.nan]),
        "path": Path("a/b"),
        3: (1, 2),
    }
    storage.write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {
        "a": [1, 2.5, None, True, "ü"],
        "nan": None,
        "inf": [None],
        "numpy": 0.5,
        "array": [[1, 2], [3, 4]],
        "tensor": [1.0, None],
        "path": "a/b",
        "3": [1, 2],
    }


def test_json_carries_file_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b"scan-\xff.png")
    storage.write_json(tmp_path / "a.json", {"file": name})
    assert storage.read_json(tmp_path / "a.json") == {"file": name}


def test_unreadable_json_is_reported_with_its_file(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(StorageError, match="does not exist"):
        storage.read_json(path)
    for content in (b"{", b"\xff\xfe", b"", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"a\.json: the file is not readable as JSON"):
            storage.read_json(path)


def test_hashes_follow_content_alone(tmp_path):
    for name in ("a", "b"):
        storage.write_bytes(tmp_path / name, b"same")
    assert storage.hash_file(tmp_path / "a") == storage.hash_file(tmp_path / "b")
    assert storage.hash_json({"a": 1, "b": [2]}) == storage.hash_json({"b": [2], "a": 1})
    assert storage.hash_json({"a": 1}) != storage.hash_json({"a": 2})
    with pytest.raises(StorageError, match="cannot be read"):
        storage.hash_file(tmp_path / "missing")


def test_tensor_hash_sees_names_types_shapes_and_values():
    base = {"a": torch.arange(6.0), "b": torch.tensor(1)}
    same = {"b": torch.tensor(1), "a": torch.arange(6.0)}
    assert storage.hash_tensors(base) == storage.hash_tensors(same)
    others = [
        {**base, "a": torch.arange(6.0).reshape(2, 3)},
        {**base, "a": torch.arange(6.0).double()},
        {**base, "a": torch.arange(6.0) + torch.tensor([0, 0, 0, 0, 0, 1e-6])},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({storage.hash_tensors(state) for state in [base, *others]}) == 5


def test_tensors_read_back_exactly_with_their_metadata(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": shared,
        "view": shared.t(),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 2),
    }
    storage.write_tensors(tmp_path / "a.safetensors", tensors, {"note": "ü"})
    back, metadata = storage.read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"note": "ü"}
    assert set(back) == set(tensors)
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors)
    assert storage.tensor_shapes(tmp_path / "a.safetensors")["view"] == (4, 3)


def test_header_that_begins_like_a_pickle_is_still_read(tmp_path):
    # A header of 128 (0x80) or 19280 ("PK") bytes modulo their range is as good as any other.
    lengths = set()
    for extra in range(0, 264, 8):
        path = tmp_path / "a.safetensors"
        storage.write_tensors(path, {"a": torch.zeros(1)}, {"note": "x" * (440 + extra)})
        lengths.add(path.read_bytes()[:2])
        assert storage.read_tensors(path)[0]["a"].tolist() == [0.0]
    assert b"\x80\x02" in lengths


def test_reading_survives_that_the_file_is_replaced(tmp_path):
    path = tmp_path / "a.safetensors"
    storage.write_tensors(path, {"a": torch.ones(1000)})
    first, _ = storage.read_tensors(path)
    storage.write_tensors(path, {"a": torch.zeros(10)})
    assert first["a"].sum() == 1000


def test_defects_of_the_caller_keep_their_own_error(tmp_path):
    with pytest.raises(TypeError):
        storage.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {"note": 3})  # type: ignore[dict-item]
    assert names(tmp_path) == []


def test_scratch_leaves_nothing_and_tells_of_a_full_disk(tmp_path):
    with storage.scratch(tmp_path / "new") as file:
        file.write(b"x" * 9)
        assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(StorageError, match="No space left"), storage.scratch(tmp_path):
        raise OSError(28, "No space left on device")
