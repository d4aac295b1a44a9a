"""Files made to harm, and disks that fail: each is refused with its reason, and nothing that was good is lost."""

import errno
import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from preceptor import storage
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import load_package, save_package
from preceptor.errors import StorageError, UntrustedFileError
from preceptor.segmentors import zoo


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    network = zoo.build("unguided", in_channels=1, classes=2, size="tiny")
    segmentor = {"name": "unguided", "size": "tiny", "options": {}, "in_channels": 1, "classes": 2, "condition": None}
    return save_package(
        tmp_path_factory.mktemp("sound") / "package",
        network,
        segmentor=segmentor,
        preprocessing=Preprocessing((32, 32), 1),
        labels={"background": 0, "lesion": 255},
        card={},
    )


@pytest.fixture
def package(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "package"))


def describe(package: Path, **changes) -> None:
    """Change fields of package.json, named with __ between levels."""
    content = json.loads((package / "package.json").read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    (package / "package.json").write_text(json.dumps(content))


@pytest.fixture
def no_tensor_read(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("a tensor was read before the package was found sound")

    monkeypatch.setattr(storage, "read_tensors", refuse)


def refused(path: Path, kind: type[StorageError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        load_package(path)
    for word in words:
        assert word in str(caught.value)
    assert type(caught.value) is kind


def test_sound_package_loads(package):
    assert load_package(package).needs == "none"


# Weights that are something else


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_named_safetensors_is_refused_unopened(package, tmp_path, protocol):
    mark = tmp_path / "executed"
    (package / "weights.safetensors").write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
    refused(package, UntrustedFileError, "a pickled checkpoint, which can execute code", "preceptor import-weights")
    assert not mark.exists()


def test_torch_checkpoint_named_safetensors_is_refused_unopened(package, tmp_path):
    torch.save({"a": torch.zeros(1)}, package / "weights.safetensors")
    refused(package, UntrustedFileError, "a pickled checkpoint")


@pytest.mark.parametrize("claimed", [storage.HEADER_LIMIT + 1, 2**40, 2**63])
def test_absurd_header_is_refused_before_it_is_read(package, claimed):
    (package / "weights.safetensors").write_bytes(struct.pack("<Q", claimed) + b'{"a":' + b" " * 100)
    refused(package, UntrustedFileError, "claims an absurdly long header", str(claimed))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\0" * 8,
        b"\x10" + b"\0" * 7 + b"{",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{x",
        b"a" * 99,
    ],
)
def test_weights_that_are_nothing_are_refused(package, content):
    (package / "weights.safetensors").write_bytes(content)
    refused(package, StorageError, "weights.safetensors")


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.999])
def test_weights_cut_short_are_refused_with_both_hashes(package, share, no_tensor_read):
    path = package / "weights.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(package, StorageError, "weights.safetensors", "copy")


def test_one_flipped_bit_is_noticed(package, no_tensor_read):
    path = package / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    refused(package, StorageError, "not those that the package describes", "sha256", "copy the package again")


def test_header_with_tensors_beyond_the_file_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(StorageError, match="damaged or cut short"):
        storage.read_tensors(tmp_path / "a.safetensors")


# Descriptions that lie


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (2, ("a newer format", "found:    format version 2", "update preceptor")),
        (0, ("an older or unknown format", "write the package again")),
        ("1", ("an older or unknown format",)),
        (None, ("an older or unknown format",)),
        (True, ("an older or unknown format",)),
    ],
)
def test_unknown_format_version_is_refused(package, no_tensor_read, version, words):
    describe(package, version=version)
    refused(package, StorageError, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "something"}, ("no description of a package",)),
        ({"segmentor__name": "os.system"}, ("a segmentor that this version does not have", "os.system")),
        ({"segmentor__name": "torch.hub.load"}, ("a segmentor that this version does not have",)),
        ({"segmentor__options": {"pretrained": "evil/model"}}, ("would fetch weights from elsewhere",)),
        ({"segmentor__options": {"widths": [2**16] * 4}}, ("do not fit the segmentor",)),
        ({"segmentor__options": {"widths": [10**9] * 4}}, ("options are not possible",)),
        ({"segmentor__options": {"nothing": 1}}, ("a segmentor that this version does not have", "nothing")),
        ({"segmentor__in_channels": 10**9}, ("segmentor.in_channels",)),
        ({"segmentor__classes": True}, ("segmentor.classes", "found True")),
        ({"segmentor__size": "enormous"}, ("segmentor.size",)),
        ({"weights__file": "../../../etc/passwd"}, ("weights.file", "'weights.safetensors'")),
        ({"weights__sha256": "00"}, ("weights.sha256",)),
        ({"needs": "report"}, ("contradicts itself", "needs 'report'")),
        ({"labels": {"a": 0, "b": 1, "c": 2}}, ("3 labels for 2 classes",)),
        ({"preprocessing__size": [2**40, 32]}, ("the preprocessing does not fit", "at most 16384")),
        ({"preprocessing__code": "import os"}, ("preprocessing",)),
        ({"surprise": 1}, ("surprise: unknown key",)),
    ],
)
def test_description_that_lies_is_refused_before_a_tensor_is_read(package, no_tensor_read, changes, words):
    describe(package, **changes)
    refused(package, StorageError, *words)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '{"format": "preceptor-package"'])
def test_description_that_is_no_json_object_is_refused(package, content):
    (package / "package.json").write_text(content)
    refused(package, StorageError, "package.json")


def test_endless_description_is_refused_unread(package):
    with open(package / "package.json", "wb") as file:
        file.truncate(2**33)
    refused(package, UntrustedFileError, "absurdly long")


def test_missing_keys_are_named(package):
    content = json.loads((package / "package.json").read_text())
    del content["labels"]
    (package / "package.json").write_text(json.dumps(content))
    refused(package, StorageError, "labels: required, but missing")


@pytest.mark.parametrize("name", ["package.json", "weights.safetensors"])
def test_missing_files_are_named(package, name):
    (package / name).unlink()
    refused(package, StorageError, "this is no package", f"{name} missing")


# Folders with more in them


@pytest.mark.parametrize("name", ["extra.pkl", "model.pt", "a.ckpt", "hidden.npy", "x.joblib", "m.bin"])
def test_pickle_beside_the_weights_is_refused(package, name):
    (package / name).write_bytes(b"x")
    refused(package, UntrustedFileError, "can execute code", name)


def test_pickle_under_a_harmless_name_is_refused(package, tmp_path):
    (package / "notes.txt").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    refused(package, UntrustedFileError, "can execute code", "notes.txt")


@pytest.mark.parametrize("name", ["run.sh", "setup.py", "model.so", "weights.safetensors~", "a\\b", "library.dll"])
def test_file_that_does_not_belong_is_refused(package, name):
    (package / name).write_bytes(b"x")
    refused(package, UntrustedFileError, "does not belong in one", name)


@pytest.mark.parametrize("name", ["weights.safetensors", "README.md", "extra.txt"])
def test_link_in_a_package_is_refused(package, tmp_path, name):
    (package / name).unlink(missing_ok=True)
    (package / name).symlink_to("/etc/hostname")
    refused(package, UntrustedFileError, "holds a link", name)


def test_folder_and_pipe_in_a_package_are_refused(package):
    (package / "inner").mkdir()
    refused(package, UntrustedFileError, "something that is no file", "inner")
    (package / "inner").rmdir()
    os.mkfifo(package / "a.txt")
    refused(package, UntrustedFileError, "something that is no file", "a.txt")


# Archives


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for info, content in members:
            info.size = info.size or len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """Where archives are unpacked, to see that nothing stays."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


EVIL_NAMES = ["../evil", "a/../../evil", "/evil", "C:/evil", "..\\evil", "\\evil", "a/../../../tmp/evil", "b/.."]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_zip_that_would_write_elsewhere_is_refused(tmp_path, scratch, name):
    archive = zipped(tmp_path / "a.zip", (name, b"x"))
    refused(archive, UntrustedFileError, "would write outside its folder", archive.name)
    assert list(scratch.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_tar_that_would_write_elsewhere_is_refused(tmp_path, scratch, name):
    refused(tarred(tmp_path / "a.tar.gz", (member(name), b"x")), UntrustedFileError, "would write outside its folder")
    assert list(scratch.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_tar_with_a_link_or_device_is_refused(tmp_path, scratch, kind):
    archive = tarred(tmp_path / "a.tar", (member("weights.safetensors", kind, "/etc/passwd"), b""), mode="w")
    refused(archive, UntrustedFileError, "a link or a device", "weights.safetensors")


def test_zip_with_a_link_is_refused(tmp_path, scratch):
    info = zipfile.ZipInfo("weights.safetensors")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", UntrustedFileError, "holds a link")


def test_zip_bomb_is_refused_before_it_fills_the_disk(tmp_path, scratch, monkeypatch):
    archive = zipped(tmp_path / "a.zip", ("weights.safetensors", bytes(64 * 2**20)))
    written = []
    copy = storage._copy_bounded

    def watched(archive, source, target, left):
        try:
            return copy(archive, source, target, left)
        finally:
            written.append(target.stat().st_size)

    monkeypatch.setattr(storage, "_copy_bounded", watched)
    refused(archive, UntrustedFileError, "unpacks to far more than its size suggests")
    assert sum(written) <= 200 * archive.stat().st_size
    assert list(scratch.iterdir()) == []


def test_bomb_of_many_small_files_is_refused(tmp_path, scratch):
    archive = zipped(tmp_path / "a.zip", *((f"{n}", b"") for n in range(60)))
    with pytest.raises(UntrustedFileError, match="more than 50 files"), storage.unpacked(archive, members=50):
        pass


def test_tar_bomb_in_its_header_is_refused_before_it_is_read(tmp_path, scratch):
    """A tar reader takes an announced extra header whole into memory; here it would be half a gigabyte."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**29
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(2048))
    refused(tmp_path / "a.tar", UntrustedFileError, "absurdly long header", str(2**29))


@pytest.mark.parametrize("names", [("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("a.txt", "./a.txt")])
def test_archive_that_names_a_file_twice_is_refused(tmp_path, scratch, names):
    archive = tarred(tmp_path / "a.tar.gz", *((member(name), b"x") for name in names))
    refused(archive, UntrustedFileError, "names a file twice")


def test_damaged_archives_are_reported(package, tmp_path, scratch):
    whole = Path(shutil.make_archive(str(tmp_path / "whole"), "gztar", package))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-5000])
    refused(cut, StorageError, "damaged, cut short")
    zipfile_ = bytearray(zipped(tmp_path / "a.zip", ("a", bytes(range(256)) * 9)).read_bytes())
    zipfile_[60] ^= 255
    (tmp_path / "a.zip").write_bytes(zipfile_)
    refused(tmp_path / "a.zip", StorageError, "damaged, cut short")
    (tmp_path / "b.zip").write_bytes(b"not an archive")
    refused(tmp_path / "b.zip", StorageError, "neither a zip nor a tar archive")
    assert list(scratch.iterdir()) == []


def test_file_and_folder_of_one_name_are_reported(tmp_path, scratch):
    refused(tarred(tmp_path / "a.tar.gz", (member("a"), b"x"), (member("a/b"), b"x")), StorageError, "damaged")


def test_unpacked_files_never_keep_the_permissions_of_the_archive(tmp_path, scratch):
    info = member("tool")
    info.mode = 0o4777
    with storage.unpacked(tarred(tmp_path / "a.tar.gz", (info, b"x"))) as folder:
        assert not (folder / "tool").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)
    assert list(scratch.iterdir()) == []


# Disks that fail


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
    target = tmp_path / "a.json"
    storage.write_json(target, {"old": True})
    monkeypatch.setattr(storage.os, call, full)
    with pytest.raises(StorageError, match="an older version, if there was one, is intact") as caught:
        storage.write_json(target, {"new": True})
    monkeypatch.undo()
    assert "No space left on device" in str(caught.value)
    assert "free space" in str(caught.value)
    assert storage.read_json(target) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_full_disk_while_tensors_are_written_leaves_the_old_ones(tmp_path, monkeypatch):
    import safetensors.torch

    target = tmp_path / "a.safetensors"
    storage.write_tensors(target, {"a": torch.ones(3)})

    def half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(StorageError, match="No space left on device"):
        storage.write_tensors(target, {"a": torch.zeros(3)})
    assert storage.read_tensors(target)[0]["a"].sum() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_full_disk_while_a_package_is_saved_leaves_the_old_one(package, monkeypatch):
    before = load_package(package)
    parts = {"segmentor": before.segmentor, "preprocessing": before.preprocessing, "labels": before.labels}
    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_package(package, before.network, card={"new": True}, **parts)
    monkeypatch.undo()
    assert load_package(package).card == {}
    assert [path.name for path in package.parent.iterdir()] == ["package"]


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A real disk of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_really_full_disk_leaves_old_files_and_no_halves(tiny_disk):
    storage.write_json(tiny_disk / "a.json", {"old": True})
    storage.write_tensors(tiny_disk / "a.safetensors", {"a": torch.ones(3)})
    for write in (
        lambda: storage.write_json(tiny_disk / "a.json", {"new": "x" * 10**6}),
        lambda: storage.write_bytes(tiny_disk / "b.bin", bytes(10**6)),
        lambda: storage.write_tensors(tiny_disk / "a.safetensors", {"a": torch.zeros(10**6)}),
    ):
        with pytest.raises(StorageError, match="No space left on device"):
            write()
    assert storage.read_json(tiny_disk / "a.json") == {"old": True}
    assert storage.read_tensors(tiny_disk / "a.safetensors")[0]["a"].sum() == 3
    assert sorted(path.name for path in tiny_disk.iterdir()) == ["a.json", "a.safetensors"]
