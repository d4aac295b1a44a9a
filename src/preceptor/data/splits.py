"""Which case belongs to train, val and test: as given, at random by groups, by published lists, or the tail."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from preceptor.data.case import Case, Split
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import FilesRecipe, SplitRecipe


def assign_splits(cases: Sequence[Case], split: SplitRecipe) -> tuple[Case, ...]:
    """The cases in their order, each with a split. A pure function of names, groups, given splits and the recipe.

    "given": every case must have a split; where none is "val", the share `validation` of train is cut off, by groups.
    "random": given splits are ignored; shares `test` and `validation` of all cases, by groups.
    "tail": of all cases outside test, train before val, the first int((1 - validation) * n) train and the others
    validate, unshuffled and whatever their groups (specification of text-annotated data sets, section 6).

    "named": the lists of the recipe; a name is a case's own, its volume's or its group's, in this order.

    groups: "auto" keeps known groups together and takes a case without one as its own; "required" needs one for every
    case; "waived" removes groups, so that every case counts as its own everywhere.
    Raises DataError where groups or splits are missing, or too few groups are there to divide.
    """
    if split.groups == "waived":
        cases = [replace(case, group=None) for case in cases]
    elif split.groups == "required":
        _require(cases, [case for case in cases if case.group is None])
    if split.rule == "given":
        return _given(cases, split)
    if split.rule == "tail":
        return _tail(cases, split)
    if split.rule == "named":
        return _named(cases, split)
    return _random(cases, split)


def usable(cases: Sequence[Case], data: FilesRecipe) -> tuple[Case, ...]:
    """The cases that take part, with their splits: those with a mask, and with "" for a report that may be missing."""
    empty = data.missing_text == "empty"
    return tuple(
        replace(case, report="") if case.report is None and empty else case
        for case in assign_splits(cases, data.split)
        if case.mask is not None and case.split
    )


def tail_count(rows: int, validation: float) -> int:
    """How many of `rows` train under the published rule: int((1 - validation) * rows)."""
    kept = round(1 - validation, 12)  # 1 - 0.78 is 0.21999999999999997; the published rule multiplies by 0.22
    return int(kept * rows)


def _require(cases: Sequence[Case], without: Sequence[Case]) -> None:
    if without:
        raise DataError(
            "cases have no group, but `data.split.groups` is required",
            found=f"{len(without)} of {len(cases)} cases",
            offenders=[case.name for case in without],
            remedy="add groups.csv (case,group) to the data folder or a group column to the manifest",
        )


def _given(cases: Sequence[Case], split: SplitRecipe) -> tuple[Case, ...]:
    without = [case.name for case in cases if not case.split]
    if without:
        raise DataError(
            "cases have no split, but `data.split.rule` is given",
            found=f"{len(without)} of {len(cases)} cases",
            offenders=without,
            remedy="add splits.csv (case,split), fill the manifest's split column, or set `data.split.rule: random`",
        )
    train = [case for case in cases if case.split == "train"]
    if not train or split.validation == 0 or any(case.split == "val" for case in cases):
        return tuple(cases)
    chosen = _pick(train, split.validation * len(train), split.seed)
    if len(chosen) == len(train):
        raise _too_few(train, "val")
    return tuple(replace(case, split="val") if case.name in chosen else case for case in cases)


def _random(cases: Sequence[Case], split: SplitRecipe) -> tuple[Case, ...]:
    if split.validation + split.test >= 1:
        found = f"validation {split.validation} and test {split.test}"
        raise RecipeError("nothing is left to train on", where="data.split", found=found, expected="a sum below 1")
    parts: dict[str, Split] = {}
    left = list(cases)
    shares: tuple[tuple[Split, float], ...] = (("test", split.test), ("val", split.validation))
    for name, share in shares:
        chosen = _pick(left, share * len(cases), split.seed)
        parts |= dict.fromkeys(chosen, name)
        left = [case for case in left if case.name not in chosen]
        if not left and cases:
            raise _too_few(cases, name)
    return tuple(replace(case, split=parts.get(case.name, "train")) for case in cases)


def _tail(cases: Sequence[Case], split: SplitRecipe) -> tuple[Case, ...]:
    rows = [case.name for part in (("train", ""), ("val",)) for case in cases if case.split in part]
    count = tail_count(len(rows), split.validation)
    if rows and not count:
        found = f"int({round(1 - split.validation, 12)} * {len(rows)}) = 0"
        raise DataError("the tail rule leaves nothing to train on", where="data.split", found=found)
    parts: dict[str, Split] = {name: "train" if at < count else "val" for at, name in enumerate(rows)}
    return tuple(replace(case, split=parts.get(case.name, case.split)) for case in cases)


def _named(cases: Sequence[Case], split: SplitRecipe) -> tuple[Case, ...]:
    places: dict[str, Split] = {name: part for part, names in split.named.items() for name in names}
    others: Split = "" if "train" in split.named else "train"
    found, met = [], set()
    for case in cases:
        name = next((name for name in (case.name, case.volume, case.group) if name in places), None)
        met.add(name)
        found.append(replace(case, split=others if name is None else places[name]))
    lost = [name for name in places if name not in met]
    if lost:
        known = sorted({case.group or case.volume or case.name for case in cases})
        raise DataError(
            "the recipe names cases that the data folder does not hold",
            where="data.split.named",
            found=f"{len(lost)} of {len(places)} names",
            expected=f"groups, volumes or cases such as {', '.join(known[:5])}",
            offenders=lost,
            remedy="mend the names, bring the missing cases, or set `data.split.rule: random`",
        )
    return tuple(found)


def _pick(cases: Iterable[Case], target: float, seed: int) -> set[str]:
    """Names of about `target` cases: whole groups in the order of their hash, each taken if that comes closer.

    The order depends on the seed and the group alone, so that a further group moves few of the others.
    """
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(f"case {case.name}" if case.group is None else f"group {case.group}", []).append(case.name)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    chosen: set[str] = set()
    for group in order:
        if abs(len(chosen) + len(groups[group]) - target) < abs(len(chosen) - target):
            chosen.update(groups[group])
    if not chosen and target > 0 and order:
        chosen.update(groups[min(order, key=lambda group: len(groups[group]))])
    return chosen


def _too_few(cases: Sequence[Case], split: str) -> DataError:
    groups = {case.group or case.name for case in cases}
    return DataError(
        "too few groups to divide",
        where="data.split",
        found=f"{len(cases)} cases in {len(groups)} groups; {split} would take the last of them",
        remedy="add cases of other patients, or set the share to 0",
    )
