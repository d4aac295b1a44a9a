"""The only place that writes files atomically, hashes content, and reads tensors or archives from disk.

Every file is written under a temporary name in its own folder, flushed to the disk, and renamed: a file with its final
name is complete. Tensors are safetensors; nothing here can execute what it reads.
"""

import contextlib
import hashlib
import json
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from preceptor.errors import StorageError, UntrustedFileError

if TYPE_CHECKING:
    from torch import Tensor

HEADER_LIMIT = 16 * 2**20
"""Largest safetensors header that is read, in bytes; real ones are far smaller."""


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success flush it to the disk and rename it to `path`.

    On any error the temporary file is removed and an older `path` stays as it was.
    Raises StorageError where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        "the file could not be written; an older version, if there was one, is intact",
        where=path,
        found=error.strerror or str(error),
        remedy="free space or check the folder's permissions, then give the same command again",
    )


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text with plain line ends, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write bytes atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically; NaN and infinity become null, since JSON has neither."""
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return None
    return str(value) if isinstance(value, Path) else value


def read_json(path: Path | str) -> Any:
    """Read JSON. Raises StorageError where the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError("the file does not exist", where=path) from error
    except (OSError, ValueError) as error:
        raise StorageError("the file is not readable as JSON", where=path, found=str(error)) from error


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON-like value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def hash_tensors(tensors: Mapping[str, "Tensor"]) -> str:
    """SHA-256 over names, types, shapes and values: equal exactly for the same state."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path | str, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically. Shared storage is copied."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata=dict(metadata or {}))
        except Exception as error:  # safetensors raises its own type for a full disk
            raise OSError(str(error)) from error


def read_tensors(path: Path | str) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Read a safetensors file: (tensors by name, metadata).

    Raises UntrustedFileError for a pickle or an absurd header, StorageError for a missing or damaged file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    refuse_unsafe_tensor_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(
            "the weights file is damaged or cut short",
            where=path,
            found=f"{path.stat().st_size} bytes, {error}",
            remedy="copy the file again, or take the last good checkpoint",
        ) from error


def refuse_unsafe_tensor_file(path: Path | str) -> None:
    """Raise unless `path` looks like a safetensors file with a header of a sane size."""
    path = Path(path)
    if not path.is_file():
        raise StorageError("the weights file does not exist", where=path)
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise UntrustedFileError(
            "this is a pickled checkpoint, which can execute code when it is loaded",
            where=path,
            expected="a safetensors file",
            remedy="convert it once with `preceptor import-weights`",
        )
    header = int.from_bytes(start, "little")
    size = path.stat().st_size
    if len(start) < 8 or header > HEADER_LIMIT or header + 8 > size:
        raise StorageError(
            "the weights file is damaged or is no safetensors file",
            where=path,
            found=f"{size} bytes, a header of {header if len(start) == 8 else 'no'} bytes",
            remedy="copy the file again",
        )


@contextlib.contextmanager
def unpacked(
    archive: Path | str, *, members: int = 10_000, total: int = 4 * 2**30, ratio: float = 200.0
) -> Iterator[Path]:
    """Unpack a zip or tar archive into a fresh temporary folder, which lives as long as the context.

    Refuses links, devices, absolute or parent paths, duplicate names, more than `members` files, more than `total`
    bytes, and more than `ratio` unpacked bytes for a packed one. Raises UntrustedFileError or StorageError.
    """
    archive = Path(archive)
    with tempfile.TemporaryDirectory(prefix="preceptor-") as name:
        folder = Path(name)
        limit = min(total, int(ratio * max(archive.stat().st_size, 1024)) if archive.is_file() else 0)
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder, members, limit)
        elif archive.is_file() and tarfile.is_tarfile(archive):
            _untar(archive, folder, members, limit)
        else:
            raise StorageError("the file is neither a zip nor a tar archive", where=archive)
        yield folder


def _unzip(archive: Path, folder: Path, members: int, limit: int) -> None:
    seen: set[str] = set()
    left = limit
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UntrustedFileError("the archive holds a link", where=archive, found=member.filename)
            target = _member_path(archive, folder, member.filename, seen, members)
            if member.is_dir():
                continue
            with file.open(member) as source:
                left = _copy_bounded(archive, source, target, left)


def _untar(archive: Path, folder: Path, members: int, limit: int) -> None:
    seen: set[str] = set()
    left = limit
    with tarfile.open(archive) as file:
        for member in file:
            if not (member.isreg() or member.isdir()):
                raise UntrustedFileError("the archive holds a link or a device", where=archive, found=member.name)
            target = _member_path(archive, folder, member.name, seen, members)
            source = file.extractfile(member)
            if source is not None:
                left = _copy_bounded(archive, source, target, left)


def _member_path(archive: Path, folder: Path, name: str, seen: set[str], members: int) -> Path:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name or "\x00" in name:
        raise UntrustedFileError("the archive would write outside its folder", where=archive, found=name)
    key = str(pure).casefold()
    if key in seen or len(seen) >= members:
        why = "the archive names a file twice" if key in seen else f"the archive holds more than {members} files"
        raise UntrustedFileError(why, where=archive, found=name)
    seen.add(key)
    return folder / pure


def _copy_bounded(archive: Path, source: Any, target: Path, left: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as file:
        while chunk := source.read(2**20):
            left -= len(chunk)
            if left < 0:
                raise UntrustedFileError("the archive unpacks to far more than its size suggests", where=archive)
            file.write(chunk)
    return left
