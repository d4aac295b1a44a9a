"""From reports to the condition of kind "attributes": by a published sentence, a clinical note, or a table's facts."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from preceptor.text.attributes import ATTRIBUTES, attribute_vector, parse_attributes, parse_coded
from preceptor.text.notes import parse_note
from preceptor.text.probes import shuffled
from preceptor.text.sides import mirror

Facts = Mapping[str, float | None]

CODINGS: dict[str, Callable[[str], Facts | None]] = {"sentence": parse_attributes, "notes": parse_note}
"""From `reports.coding` to what reads the facts of a text; None or a missing name where it does not say."""


class AttributeReader:
    """Makes the condition of kind "attributes" of texts: facts in the wording of `coded`, or else read by a coding.

    identity: of the meaning of the eight numbers. length, width: as in `segmentors.base.Condition`.
    """

    identity = "attributes-1"
    length = 1
    width = len(ATTRIBUTES)

    def __init__(self, coding: str = "sentence") -> None:
        self.read = CODINGS[coding]
        self._known: dict[str, Tensor] = {}

    def facts(self, text: str) -> Facts:
        """The attributes of one text by name; those that it does not say are None or left out."""
        coded = parse_coded(text)
        return (self.read(text) or {}) if coded is None else coded

    def batch(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, 8], NaN where unknown."""
        if not texts:
            return torch.empty(0, self.width)
        for text in set(texts) - set(self._known):
            self._known[text] = attribute_vector(self.facts(text))
        return torch.stack([self._known[text] for text in texts])


def wrong_attributes(texts: Sequence[str], seed: int) -> dict[str, list[str]]:
    """The probes of a network that is shown attributes, from probe name to the texts that are coded instead.

    unknown: nothing is said. shuffled, wrong_side: as `probes.wrong_reports`.
    """
    return {
        "unknown": [""] * len(texts),
        "shuffled": shuffled(texts, seed),
        "wrong_side": [mirror(text, horizontal=True, vertical=False) for text in texts],
    }
