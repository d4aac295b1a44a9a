"""The only place that writes files atomically, hashes content, and reads tensors or archives from disk.

Every file is written under a temporary name in its own folder, flushed to the disk, and renamed: a file with its final
name is complete. Tensors are safetensors; nothing here can execute what it reads.
"""

import contextlib
import hashlib
import json
import lzma
import os
import secrets
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

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
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp: its files are private to the user, whatever the umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path | str, marker: str) -> Iterator[Path]:
    """Give a fresh temporary folder beside `path`; on success rename it to `path`, and only then remove an older one.

    marker: name of a file that an older folder must hold, so that no other folder is ever replaced by mistake.
    On any error the older folder stays; after a power cut between the two renames it comes back at the next call.
    Raises StorageError for a full disk and for an older folder without its marker.
    """
    path = Path(path)
    temporary, previous = _beside(path), path.with_name(f".{path.name}.previous")
    try:
        if previous.exists() and not path.exists():
            previous.rename(path)
        if path.is_symlink() or (path.exists() and not (path / marker).is_file() and not _is_empty(path)):
            raise StorageError(
                "this already exists and is nothing that may be replaced",
                where=path,
                expected=f"no such folder, an empty one, or one with a file {marker}",
                remedy="name another folder, or move this one away",
            )
        temporary.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        shutil.rmtree(previous, ignore_errors=True)
        if path.exists():
            path.rename(previous)
        try:
            temporary.rename(path)
        except OSError:
            if previous.exists():
                previous.rename(path)
            raise
        _sync_folder(path.parent)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def scratch(folder: Path | str) -> Iterator[IO[bytes]]:
    """Give an open file on the disk of `folder`, which is made; the file has no name and is gone when it is closed.

    Raises StorageError where the disk is full or the folder cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise _cannot_write(Path(folder), error) from error


def _beside(path: Path) -> Path:
    # The path's own name may be as long as names can be, so it is cut.
    return path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.partial")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _sync_folder(folder: Path) -> None:
    # A rename is on the disk when its folder is. Some systems cannot open folders; there the rename alone must do.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        # File names that are no UTF-8 hold lone surrogates, which only an escape can carry.
        text = json.dumps(_plain(value), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, tensors, and their scalars
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return None
    return str(value) if isinstance(value, Path) else value


def read_json(path: Path | str) -> Any:
    """Read JSON. Raises StorageError where the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError("the file does not exist", where=path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError("the file is not readable as JSON", where=path, found=str(error)) from error


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file's content, hexadecimal. Raises StorageError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError("the file cannot be read", where=path, found=error.strerror or str(error)) from error


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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # its own type, also for a full disk
            raise OSError(str(error)) from error


def read_tensors(path: Path | str) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Read a safetensors file: (tensors by name, metadata).

    Raises UntrustedFileError for a pickle or an absurd header, StorageError for a missing or damaged file.
    """
    with _tensor_file(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def tensor_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Name to shape of a safetensors file's tensors, from its header alone. Raises as `read_tensors`."""
    with _tensor_file(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextlib.contextmanager
def _tensor_file(path: Path | str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    refuse_unsafe_tensor_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
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
        start = file.read(9)
    header, size = int.from_bytes(start[:8], "little"), path.stat().st_size
    if len(start) == 9 and start[8:] == b"{" and header <= min(HEADER_LIMIT, size - 8):
        return
    # Only now the marks of a pickle: the length of a sound header may begin with the same bytes.
    if looks_pickled(start):
        raise UntrustedFileError(
            "this is a pickled checkpoint, which can execute code when it is loaded",
            where=path,
            expected="a safetensors file",
            remedy="convert it once with `preceptor import-weights`",
        )
    if len(start) == 9 and start[8:] == b"{" and header > HEADER_LIMIT:
        raise UntrustedFileError(
            "the weights file claims an absurdly long header",
            where=path,
            found=f"a header of {header} bytes",
            expected=f"at most {HEADER_LIMIT}",
            remedy="take the file from a source that you trust",
        )
    raise StorageError(
        "the weights file is damaged or is no safetensors file",
        where=path,
        found=f"{size} bytes",
        remedy="copy the file again",
    )


def looks_pickled(start: bytes) -> bool:
    """Whether a file that starts so is a pickle of protocol 2 or later, or a zip archive, as PyTorch pickles into."""
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


@contextlib.contextmanager
def unpacked(
    archive: Path | str, *, members: int = 10_000, total: int = 4 * 2**30, ratio: float = 200.0
) -> Iterator[Path]:
    """Unpack a zip or tar archive into a fresh temporary folder, which lives as long as the context.

    Refuses links, devices, absolute or parent paths, duplicate names, more than `members` files, more than `total`
    bytes, and more than `ratio` unpacked bytes for a packed one. Raises UntrustedFileError or StorageError.
    """
    archive = Path(archive)
    if not archive.is_file():
        raise StorageError("the archive does not exist", where=archive)
    limit = min(total, int(ratio * max(archive.stat().st_size, 1024)))
    with tempfile.TemporaryDirectory(prefix="preceptor-") as name:
        folder = Path(name)
        try:
            if zipfile.is_zipfile(archive):
                _unzip(archive, folder, members, limit)
            else:
                _untar(archive, folder, members, limit)
        except _DAMAGED as error:
            raise StorageError(
                "the archive is damaged, cut short, encrypted or too large for the temporary folder",
                where=archive,
                found=str(error),
                remedy="copy the file again, or unpack it yourself and name the folder",
            ) from error
        yield folder


_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What the standard readers raise for damaged archives; RuntimeError is zipfile's answer to an encrypted one."""


class _BoundedMember(tarfile.TarInfo):
    """A tar header that refuses to announce a long name or extra header of megabytes, which would be read whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedMember":
        member = super().frombuf(buf, encoding, errors)
        if not (member.isreg() or member.isdir()) and member.size > 2**20:
            raise UntrustedFileError("the archive announces an absurdly long header", found=f"{member.size} bytes")
        return member


def _unzip(archive: Path, folder: Path, members: int, limit: int) -> None:
    seen: set[str] = set()
    left = limit
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UntrustedFileError("the archive holds a link", where=archive, found=member.filename)
            target = _member_path(archive, folder, member.filename, seen, members)
            if not member.is_dir():
                with file.open(member) as source:
                    left = _copy_bounded(archive, source, target, left)


def _untar(archive: Path, folder: Path, members: int, limit: int) -> None:
    seen: set[str] = set()
    left = limit
    try:
        file = tarfile.open(archive, tarinfo=_BoundedMember)  # noqa: SIM115 - closed by the `with` below
    except tarfile.ReadError as error:
        raise StorageError("the file is neither a zip nor a tar archive", where=archive) from error
    with file:
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
