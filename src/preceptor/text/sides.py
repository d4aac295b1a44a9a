"""Side words of a report, and what becomes of them when the image is flipped.

A flipped image with its old report teaches that left is right. `mirror` swaps the words; `can_mirror` says whether that
is enough: a middle lobe, which only the right lung has, or an hour on a clock face has no mirrored wording.
"""

import re
from collections.abc import Callable, Iterable

_ACROSS = (
    ("left", "right"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("leftmost", "rightmost"),
    ("lt", "rt"),
    ("lul", "rul"),
    ("lll", "rll"),
)
_DOWN = (
    ("upper", "lower"),
    ("uppermost", "lowermost"),
    ("top", "bottom"),
    ("apical", "basal"),
    ("biapical", "bibasal"),
    ("apex", "base"),
    ("apices", "bases"),
    ("superior", "inferior"),
    ("superiorly", "inferiorly"),
    ("cranial", "caudal"),
    ("suprahilar", "infrahilar"),
    ("above", "below"),
    ("rul", "rll"),
    ("lul", "lll"),
)


def _both_ways(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {word: other for one, two in pairs for word, other in ((one, two), (two, one))}


HORIZONTAL = _both_ways(_ACROSS)
"""Words that a flip from left to right exchanges; RUL, LLL and their kin are the lobes."""
VERTICAL = _both_ways(_DOWN)
"""Words that a flip upside down exchanges."""


def _any_of(words: Iterable[str], before: str = "") -> re.Pattern[str]:
    return re.compile(before + r"\b(?:" + "|".join(sorted(words, key=len, reverse=True)) + r")\b", re.IGNORECASE)


_CLOCK = r"\b\d{1,2}(?::\d\d)?\s*o['’]?\s?clock\b"
_FIXED_HORIZONTAL = re.compile(
    rf"\b(?:middle\s+lobes?|lingula\w*|(?:minor|horizontal)\s+fissures?|azygos|rml)\b|\b(?-i:[LR])\b|{_CLOCK}",
    re.IGNORECASE,
)
# A single capital L or R may or may not be a side, so it counts as one that cannot be rewritten.
_FIXED_VERTICAL = re.compile(
    r"\b(?:lingula\w*|(?:bi)?basilar|basal\s+ganglia|vena\s+cava|supraclavicular|costophrenic|\w*diaphragm\w*)\b"
    rf"|{_CLOCK}",
    re.IGNORECASE,
)

_PLACE = r"(?:all|(?:upper|middle|lower)(?:\s+(?:upper|middle|lower))*)"
_BOTH_LUNGS = (
    rf"\b(?P<one>{_PLACE})(?P<left>\s+left\s+lung\s+and\s+)(?P<two>{_PLACE})(?P<right>\s+right\s+lung)\b"
    rf"|\b(?P<uno>{_PLACE})(?P<destra>\s+right\s+lung\s+and\s+)(?P<due>{_PLACE})(?P<sinistra>\s+left\s+lung)\b"
)
_LIST = r"\b(?P<list>(?:upper|middle|lower)(?:\s+(?:upper|middle|lower))+)\b"

_HORIZONTAL_WORD, _VERTICAL_WORD = _any_of(HORIZONTAL), _any_of(VERTICAL)
_HORIZONTAL_PART = _any_of(HORIZONTAL, f"{_BOTH_LUNGS}|")
_VERTICAL_PART = _any_of(VERTICAL, f"{_LIST}|")


def mirror(text: str, horizontal: bool, vertical: bool) -> str:
    """The report of the image flipped left to right (horizontal), upside down (vertical), or both.

    Case is kept, "bilateral" stays, and mirroring twice gives the text back. Sentences of the QaTa style keep their
    order: left lung before right, upper before lower. Words without a mirrored form stay, so ask `can_mirror` first.
    """
    if horizontal:
        text = _HORIZONTAL_PART.sub(_across, text)
    if vertical:
        text = _VERTICAL_PART.sub(_down, text)
    return text


def mentions_side(text: str) -> set[str]:
    """The axes, of "horizontal" and "vertical", along which the report says where something is."""
    axes = set()
    if _HORIZONTAL_WORD.search(text) or _FIXED_HORIZONTAL.search(text):
        axes.add("horizontal")
    if _VERTICAL_WORD.search(text) or _FIXED_VERTICAL.search(text):
        axes.add("vertical")
    return axes


def can_mirror(text: str, horizontal: bool, vertical: bool) -> bool:
    """Whether `mirror` gives a true report of the flipped image; a report without side words always can."""
    return not (horizontal and _FIXED_HORIZONTAL.search(text)) and not (vertical and _FIXED_VERTICAL.search(text))


def _across(match: re.Match[str]) -> str:
    parts = match.groups()
    for first in (0, 4):
        one, middle, two, last = parts[first : first + 4]
        if one is not None:  # two places exchange their lungs, so the lungs keep their order
            return _first_letter_as(one, two) + middle + _first_letter_as(two, one) + last
    return _as(match[0], HORIZONTAL[match[0].lower()])


def _down(match: re.Match[str]) -> str:
    if match["list"] is None:
        return _as(match[0], VERTICAL[match[0].lower()])
    words = re.split(r"(\s+)", match["list"])
    turned = [VERTICAL.get(word.lower(), word.lower()) for word in words[::2]][::-1]
    words[::2] = [_as(old, new) for old, new in zip(words[::2], turned, strict=True)]
    return "".join(words)


def _as(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    change: Callable[[str], str] = str.capitalize if model[0].isupper() else str.lower
    return change(word)


def _first_letter_as(model: str, phrase: str) -> str:
    first = phrase[0].upper() if model[0].isupper() else phrase[0].lower()
    return first + phrase[1:]
