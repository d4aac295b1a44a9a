"""The embedded text encoder: frozen token vectors that come from a hash, the same on every machine, with no download.

A word's vector is read from the SHAKE-256 digest of the word, so there is no vocabulary and no weight. Two vectors of
different words are nearly orthogonal. What a language model would add by context is added by pairs: each token also
carries the vectors of the ordered pairs it forms with its neighbours, so that "left" in "upper left" and in "lower
left" are different tokens, and a linear layer can tell them apart. Sums of float64 numbers in a fixed order, rounded
once to float32: bitwise equal everywhere.
"""

import hashlib
import math
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CLS, SEP, PAD = "[CLS]", "[SEP]", "[PAD]"
VERSION = 1
WORD, PLACE, PAIR = 0.5, 0.1, (0.5, 0.25, 0.125)
"""Variances before scaling to one: of the word, of its position, of a pair by the distance of its words."""

_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_ONE_BY_ONE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def pieces(text: str) -> list[str]:
    """Lower-case words, single digits and single signs; scripts without spaces are cut into characters."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return _PIECE.findall(_ONE_BY_ONE.sub(r" \g<0> ", plain))


@lru_cache(maxsize=2**14)
def vector(name: str, width: int) -> np.ndarray:
    """float64 [width], uniform in +-sqrt(3), so of zero mean and unit variance, drawn by the hash of `name`."""
    bits = np.frombuffer(hashlib.shake_256(name.encode()).digest(4 * width), dtype="<u4")
    values: np.ndarray = (bits * 2.0**-31 - 1.0) * math.sqrt(3)
    values.flags.writeable = False
    return values


class HashedEncoder:
    """Token features [length, width] of unit variance for any text in any language.

    limit: None, since any length can be asked for.
    """

    limit: int | None = None

    def __init__(self, length: int = 24, width: int = 128) -> None:
        self.length, self.width = length, width

    @property
    def identity(self) -> str:
        """What the features depend on, and nothing else."""
        return f"hashed/{VERSION}/length-{self.length}/width-{self.width}"

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text with [CLS] and [SEP], before it is cut to `length`."""
        return [len(pieces(text)) + 2 for text in texts]

    def encode(self, texts: list[str]) -> "Tensor":
        """float32 [N, length, width]. A longer text loses its end, but keeps [SEP]; a shorter one is padded."""
        import torch

        result = np.empty((len(texts), self.length, self.width), np.float32)
        for row, text in enumerate(texts):
            words = [CLS, *pieces(text)[: max(self.length - 2, 0)], SEP][: self.length]
            for place in range(self.length):
                result[row, place] = self._token(words, place)
        return torch.from_numpy(result)

    def _token(self, words: list[str], place: int) -> np.ndarray:
        word = words[place] if place < len(words) else PAD
        terms = [(WORD, f"word {word}"), (PLACE, f"place {place}")]
        if place < len(words):
            for step, share in enumerate(PAIR, start=1):
                for first, second in ((place - step, place), (place, place + step)):
                    if first >= 0 and second < len(words):
                        terms.append((share, f"pair {step} {words[first]} {words[second]}"))
        total = np.zeros(self.width)
        for share, name in terms:
            total += vector(name, self.width) * math.sqrt(share)
        return total / math.sqrt(sum(share for share, _ in terms))
