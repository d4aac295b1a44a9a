"""Report features: what a frozen encoder says of every text, computed once and kept in one file.

The file is safetensors: `features` float32 [N, length, width] and `texts` uint8 [N, 32], the SHA-256 of each text with
its white space made plain; the metadata names the encoder. Reading needs neither the encoder nor transformers.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from preceptor.errors import DataError, StorageError, UntrustedFileError
from preceptor.storage import read_tensors, write_tensors

if TYPE_CHECKING:
    from preceptor.text.encoders import Encoder

FORMAT = "preceptor report features 1"
AT_ONCE = 32
"""Texts that are encoded together."""


class ReportFeatures:
    """Token features by text, read from a file that `embed` wrote.

    identity: the encoder's. length, width: of the features.
    Raises StorageError for a missing or damaged file, DataError for one that holds something else.
    """

    def __init__(self, file: Path | str) -> None:
        self.file = Path(file)
        tensors, metadata = read_tensors(self.file)
        table, keys = tensors.get("features"), tensors.get("texts")
        if metadata.get("format") != FORMAT or table is None or keys is None or table.ndim != 3:
            raise DataError(
                "this is no file of report features",
                where=self.file,
                found=metadata.get("format", "no format"),
                expected=FORMAT,
                remedy="name another file; `preceptor embed` writes one",
            )
        self.identity = metadata.get("encoder", "")
        self.table: Tensor = table
        self._place = {bytes(row): place for place, row in enumerate(keys.numpy())}

    @property
    def length(self) -> int:
        return int(self.table.shape[1])

    @property
    def width(self) -> int:
        return int(self.table.shape[2])

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, text: str) -> bool:
        return text_key(text) in self._place

    def __getitem__(self, text: str) -> Tensor:
        """float32 [length, width]."""
        return self.batch([text])[0]

    def batch(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, length, width]. Raises DataError that lists the texts without features."""
        places = [self._place.get(text_key(text)) for text in texts]
        if None in places:
            raise DataError(
                "reports without features",
                where=self.file,
                offenders=[repr(text) for text in dict.fromkeys(texts) if text not in self],
                remedy="add them with `preceptor embed`",
            )
        return self.table[torch.tensor(places, dtype=torch.long)]


def text_key(text: str) -> bytes:
    """SHA-256 of a text, whose runs of white space count as one blank."""
    return hashlib.sha256(_plain(text).encode()).digest()


def _plain(text: str) -> str:
    return " ".join(text.split())


def embed(
    texts: Iterable[str],
    encoder: "Encoder",
    path: Path | str,
    progress: Callable[[int, int], object] | None = None,
) -> ReportFeatures:
    """Add to the file what it lacks of `texts`, and give it back; the encoder runs only for texts that are new.

    progress: called with (texts done, texts in all). A damaged file is built anew, with a warning.
    Raises DataError where the file holds features of another encoder.
    """
    path = Path(path)
    known = _known(path)
    if known is not None and known.identity != encoder.identity:
        raise DataError(
            "the file holds features of another encoder",
            where=path,
            found=known.identity,
            expected=encoder.identity,
            remedy="write to another file, or delete this one",
        )
    held = set() if known is None else set(known._place)
    new = {key: _plain(text) for text in texts if (key := text_key(text)) not in held}
    if not new and known is not None:
        return known
    if not new:
        raise DataError("there is no text to embed", where=path)
    parts = [] if known is None else [known.table]
    wanted = list(new.values())
    for start in range(0, len(wanted), AT_ONCE):
        parts.append(encoder.encode(wanted[start : start + AT_ONCE]).float())
        if progress is not None:
            progress(min(start + AT_ONCE, len(wanted)), len(wanted))
    keys = [*([] if known is None else known._place), *new]
    write_tensors(
        path,
        {"features": torch.cat(parts), "texts": torch.tensor([list(key) for key in keys], dtype=torch.uint8)},
        {"format": FORMAT, "encoder": encoder.identity},
    )
    return ReportFeatures(path)


def _known(path: Path) -> ReportFeatures | None:
    if not path.exists():
        return None
    try:
        return ReportFeatures(path)
    except UntrustedFileError:
        raise
    except StorageError as error:
        if path.suffix != ".safetensors":  # most likely another kind of file, named by mistake
            raise
        warnings.warn(
            f"the report features are computed anew, since the file could not be used:\n{error}", stacklevel=3
        )
        return None
