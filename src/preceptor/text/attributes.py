"""Coded facts of a lung report: the eight attributes of C2FVL, read from a sentence or written as one.

The sentence is that of the published lung sets: `<Unilateral|Bilateral> pulmonary infection, <number> infected area(s),
<place> left lung and <place> right lung.`, a place being `all` or some of `upper middle lower`. The rule is ours; the
original has none. Whatever does not fit is unknown (None), never guessed.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

ATTRIBUTES = ("bilateral", "number", "lupper", "lmiddle", "llower", "rupper", "rmiddle", "rlower")
"""The order of C2FVL's inputs. bilateral and the six thirds are 0 or 1; number counts infected areas."""

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
THIRDS = ("upper", "middle", "lower")

_PLACE = r"(?:all|(?:upper|middle|lower)(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s+)(?:upper|middle|lower))*)"
_LUNG = rf"({_PLACE})\s+(?:of\s+)?(?:the\s+)?(left|right)\s+lungs?"
_SENTENCE = re.compile(
    r"(unilateral|bilateral)\s+pulmonary\s+infections?\s*[,;]\s*"
    rf"(\d{{1,2}}|{'|'.join(NUMBERS)})\s+infected\s+areas?\s*[,;]\s*(?:in\s+)?(?:the\s+)?"
    rf"{_LUNG}(?:(?:\s*[,;]\s*(?:and\s+)?|\s+and\s+)(?:the\s+)?{_LUNG})?\s*\.?",
    re.IGNORECASE,
)
NO_INFECTION = "No pulmonary infection."


def parse_attributes(text: str) -> dict[str, int] | None:
    """The attributes by name, in the order of ATTRIBUTES, or None where the text does not say all of them.

    A side that is not named has no infection. A side that is named twice is unknown.
    """
    plain = " ".join(text.split())
    if plain.lower().rstrip(" .") == NO_INFECTION.lower().rstrip("."):
        return dict.fromkeys(ATTRIBUTES, 0)
    match = _SENTENCE.fullmatch(plain)
    if match is None:
        return None
    extent, count, *lungs = (part.lower() if part else "" for part in match.groups())
    places = {side: place for place, side in zip(lungs[::2], lungs[1::2], strict=True) if side}
    if lungs[1] == lungs[3]:
        return None
    number = int(count) if count.isdigit() else NUMBERS.index(count)
    result = {"bilateral": int(extent == "bilateral"), "number": number}
    for side in ("left", "right"):
        named = set(re.findall(r"\w+", places.get(side, "")))
        for third in THIRDS:
            result[side[0] + third] = int(third in named or "all" in named)
    return result


def sentence(attributes: Mapping[str, int]) -> str:
    """The sentence that `parse_attributes` reads back as these attributes; none infected: "No pulmonary infection."."""
    lungs = []
    for side in ("left", "right"):
        named = [third for third in THIRDS if attributes[side[0] + third]]
        if named:
            lungs.append(f"{'all' if len(named) == len(THIRDS) else ' '.join(named)} {side} lung")
    if not lungs:
        return NO_INFECTION
    count = attributes["number"]
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    extent = "Bilateral" if attributes["bilateral"] else "Unilateral"
    areas = "area" if count == 1 else "areas"
    return f"{extent} pulmonary infection, {number} infected {areas}, {' and '.join(lungs)}."


_WORDS = {
    "bilateral": "bilateral",
    "number": "number",
    **{side[0] + third: f"{side} {third}" for side in ("left", "right") for third in THIRDS},
}
_FACT = rf"(?:{'|'.join(_WORDS.values())}) \d+(?:\.\d+)?"
_CODED = re.compile(rf"{_FACT}(?:, {_FACT})*")


def coded(attributes: Mapping[str, float | None]) -> str:
    """Known attributes in words, `number 2, left upper 1`, of which a flip rewrites the sides as it does a report's."""
    known = ((word, attributes.get(name)) for name, word in _WORDS.items())
    return ", ".join(f"{word} {value:.6f}".rstrip("0").rstrip(".") for word, value in known if value is not None)


def parse_coded(text: str) -> dict[str, float] | None:
    """The attributes that `coded` wrote, in any order; None for any other text."""
    if not _CODED.fullmatch(text):
        return None
    names = {word: name for name, word in _WORDS.items()}
    pairs = (part.rsplit(" ", 1) for part in text.split(", "))
    return {names[word]: float(value) for word, value in pairs}


def attribute_vector(attributes: Mapping[str, float | None] | None) -> Tensor:
    """The attributes in the order of ATTRIBUTES, float32 [8]; NaN for what is None or not there, and throughout for
    None.
    """
    known = attributes or {}
    values = [known.get(name) for name in ATTRIBUTES]
    return torch.tensor([float("nan") if value is None else float(value) for value in values])
