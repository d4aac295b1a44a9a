"""What a check can find, by code, and how findings are worded, grouped and shown.

A finding's message is "what was found; remedy: what to do". Findings of one code share their title and mostly their
remedy, so that a terminal shows each once, above and below the list of offenders.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

from preceptor.data.case import Finding
from preceptor.errors import LISTED

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

TITLES = {
    "unreadable-image": "an image file cannot be read",
    "unreadable-mask": "a mask file cannot be read",
    "missing-mask": "an image has no mask",
    "missing-image": "a mask has no image",
    "missing-folder": "a folder of the layout is missing",
    "ignored-file": "a file is not read",
    "ignored-folder": "a folder is not read",
    "listed-not-there": "a list names what is not there",
    "not-listed": "a file is in no list of its layout",
    "published-split": "a list is missing; the published split is taken",
    "missing-frame": "a frame of the heart's cycle that Info.cfg names is missing",
    "no-reference": "images have no reference masks",
    "first-fold": "the first of several folds divides the cases",
    "labels-unusable": "the data set's own labels are no classes of one mask",
    "labels-listed": "the data set's own labels have several values for one class",
    "same-name": "two files name the same case",
    "renamed-case": "a case was renamed",
    "no-mask": "a case has no mask",
    "no-attributes": "no attribute of any case is known",
    "unknown-attributes": "a case says nothing of its attributes",
    "odd-attribute": "an attribute is neither 0 nor 1",
    "attribute-without-case": "a row of the table of attributes fits no case",
    "ambiguous-attribute": "a row of the table of attributes fits several cases",
    "duplicate-attribute-row": "the table of attributes names a case twice",
    "nan-image": "an image holds values that are not numbers (NaN or infinity)",
    "nan-mask": "a mask holds values that are not numbers (NaN or infinity)",
    "constant-image": "an image has one value everywhere",
    "shape-mismatch": "image and mask differ in shape (rows x columns)",
    "geometry-mismatch": "image and mask lie at different places or spacings",
    "geometry-rounding": "image and mask differ in place or spacing by rounding only; accepted",
    "no-labels": "the labels of the masks are not declared",
    "undeclared-value": "a mask stores values that `labels` does not declare",
    "soft-mask": "a mask holds intermediate values, as after interpolation or JPEG compression",
    "absent-class": "a declared class is in no mask",
    "empty-mask": "a mask has no foreground",
    "empty-slices": "slices of volumes have no foreground",
    "duplicate-image": "the same image is in one split under several names",
    "duplicate-across-splits": "the same image is in several splits",
    "group-overlap": "a patient or group is in several splits",
    "no-groups": "no patient or group is known",
    "no-group": "a case has no group",
    "group-without-case": "a row of groups.csv fits no case",
    "duplicate-group-row": "groups.csv names a case twice",
    "split-without-case": "a row of splits.csv fits no case",
    "duplicate-split-row": "splits.csv names a case twice",
    "unknown-split": "there is no split of this name",
    "missing-split": "a split has no case",
    "small-test": "the test split is small",
    "split-made": "cases were given to splits by the rule in `data.split`",
    "split-failed": "the cases cannot be divided into splits",
    "sizes-vary": "images differ in size or shape",
    "spacing-missing": "some images state a pixel spacing and others none: mm and pixels would mix",
    "no-spacing": "volumes state no spacing",
    "spacing-varies": "images differ in pixel spacing",
    "no-reports": "no case has a report",
    "no-report": "a case has no report",
    "empty-report": "a report is empty",
    "report-without-case": "a row of the reports fits no case",
    "duplicate-report-row": "the table of reports names a case twice",
    "missing-reports": "the table of reports is not where or what the layout expects",
    "unreadable-reports": "the table of reports cannot be read",
    "no-report-column": "the table of reports has no column of texts",
    "duplicate-report": "several cases share one report",
    "one-report": "all cases have the same report",
    "long-report": "a report is longer than what is kept of it",
    "uncounted-reports": "the length of the reports was not counted",
    "odd-characters": "a report holds characters of a wrong encoding",
    "leak": "the reports describe the mask",
    "no-cases": "the data set has no case",
}
"""Code of a finding to what it means. Codes of a layout's findings that are not here are shown by their own words."""

_REMEDY = "; remedy: "


def finding(level: Level, code: str, where: object, found: str, remedy: str = "") -> Finding:
    """A Finding whose message is the value found and, where there is one, the remedy."""
    return Finding(level, code, str(where), f"{found}{_REMEDY}{remedy}" if remedy else found)


def split_message(message: str) -> tuple[str, str]:
    """(what was found, the remedy or "") of a finding's message."""
    found, _, remedy = message.partition(_REMEDY)
    return found, remedy


def grouped(findings: Iterable[Finding]) -> list[tuple[Level, str, list[Finding]]]:
    """(level, code, findings) with errors first and otherwise in the order of appearance."""
    groups: dict[tuple[Level, str], list[Finding]] = {}
    for item in findings:
        groups.setdefault((item.level, item.code), []).append(item)
    return [(level, code, items) for of in LEVELS for (level, code), items in groups.items() if level == of]


def render_findings(findings: Sequence[Finding]) -> str:
    """Plain text: a heading a level, a block a code with the first 20 offenders, their number and the remedy."""
    lines: list[str] = []
    last = None
    for level, code, items in grouped(findings):
        if level != last:
            lines += [*([""] if lines else []), {"error": "ERRORS", "warning": "WARNINGS", "note": "NOTES"}[level]]
            last = level
        lines += _block(code, items)
    return "\n".join(lines)


def _block(code: str, items: list[Finding]) -> list[str]:
    title = TITLES.get(code, code.replace("-", " "))
    parts = [split_message(item.message) for item in items]
    remedies = {remedy for _, remedy in parts}
    common = remedies.pop() if len(remedies) == 1 else None
    lines = [f"  {title} [{code}]" + (f": {len(items)}" if len(items) > 1 else "")]
    if len(items) > 2 and len(set(parts)) == 1:
        names = ", ".join(item.where for item in items[:LISTED])
        lines += wrap(f"{parts[0][0]}: {names}", "    - ", "      ")
    else:
        for item, (found, remedy) in list(zip(items, parts, strict=True))[:LISTED]:
            text = found if common is not None or not remedy else f"{found}. Remedy: {remedy}"
            lines += wrap(f"{item.where}: {text}" if item.where else text, "    - ", "      ")
    if len(items) > LISTED:
        lines.append(f"    ... and {len(items) - LISTED} more")
    if common:
        lines += wrap(common, "    remedy: ", "            ")
    return lines


def wrap(text: str, first: str, rest: str, width: int = 100) -> list[str]:
    """Lines of at most `width` signs; only longer words are left longer."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
