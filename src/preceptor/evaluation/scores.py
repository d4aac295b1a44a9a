"""The scores of one arm as an array of cases, classes and seeds, made from its table of rows and checked for gaps."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preceptor.errors import DataError, StorageError
from preceptor.evaluation.metrics import (
    CASE_METRICS,
    DISTANCES,
    KINDS,
    METRIC_NAMES,
    image_scores,
    kind_of,
    nan_ignored,
    transunet_scores,
)
from preceptor.evaluation.statistics import group_totals

if TYPE_CHECKING:
    from pandas import DataFrame

METRICS = tuple(METRIC_NAMES)
POOLED = ("dice_pooled", "iou_pooled")
DROPPED = ("dice_nan_ignore", "hd95_nan_ignore")
MEANS = tuple(name for name in METRICS if name not in (*POOLED, *DROPPED))
"""Metrics that are plain means over cases, in the order of METRICS."""
LOWER_IS_BETTER = frozenset(name for name in METRICS if name.startswith(DISTANCES))
COUNTS = ("tp", "fp", "fn")


@dataclass(frozen=True)
class Scores:
    """Scores of an arm. values: [cases, classes, seeds, MEANS]; counts: [cases, classes, seeds, 3] of tp, fp, fn.

    groups: one a case, or None where every case is its own.
    """

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    groups: tuple[str, ...] | None
    values: np.ndarray
    counts: np.ndarray

    @property
    def kinds(self) -> dict[str, int]:
        """How often each of the four combinations of empty and present masks was met."""
        met = Counter(kind_of(*counts) for counts in self.counts.reshape(-1, 3).tolist())
        return {kind: met[kind] for kind in KINDS}

    def per_case(self, metric: str = "dice") -> np.ndarray:
        """One value a case: the mean over classes and seeds, [cases]."""
        return np.asarray(self.values[..., MEANS.index(metric)].mean(axis=(1, 2)))

    def of_seed(self, index: int) -> "Scores":
        """The same scores with one seed only."""
        one = slice(index, index + 1)
        return _with(self, seeds=self.seeds[one], values=self.values[:, :, one], counts=self.counts[:, :, one])

    def of_class(self, index: int) -> "Scores":
        """The same scores with one class only."""
        one = slice(index, index + 1)
        return _with(self, classes=self.classes[one], values=self.values[:, one], counts=self.counts[:, one])

    def of_classes(self, names: Sequence[str]) -> "Scores":
        """The same scores with the named classes only, in their order."""
        index = [self.classes.index(name) for name in names]
        return _with(self, classes=tuple(names), values=self.values[:, index], counts=self.counts[:, index])

    def of_cases(self, names: Sequence[str]) -> "Scores":
        """The same scores with the named cases only, in their order."""
        index = [self.cases.index(name) for name in names]
        groups = None if self.groups is None else tuple(self.groups[i] for i in index)
        return _with(self, cases=tuple(names), groups=groups, values=self.values[index], counts=self.counts[index])

    def repeated(self, seeds: int) -> "Scores":
        """The same scores with every seed repeated until there are `seeds`, so that arms pair seed by seed."""
        times = seeds // len(self.seeds)
        values, counts = np.repeat(self.values, times, axis=2), np.repeat(self.counts, times, axis=2)
        return _with(self, seeds=tuple(range(seeds)), values=values, counts=counts)

    def totals(self) -> np.ndarray:
        """[units, K]: what each case or group adds to the sums of which `metrics_of` makes the metrics."""
        cases = len(self.cases)
        means = self.values.mean(axis=(1, 2))
        parts = [self.counts, *self._kept(), means, np.ones((cases, 1))]
        return group_totals(np.concatenate([part.reshape(cases, -1) for part in parts], axis=1), self.groups)

    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        """DROPPED of each case and seed, [cases, seeds, 2]: the mean over the classes that count, and whether any does.

        Where none does the mean is 0. As MONAI's reduction "mean": over classes first, then over cases.
        """
        dice, hd95 = (self.values[..., MEANS.index(name)] for name in ("dice", "hd95"))
        scores = np.stack(nan_ignored(self.counts, dice, hd95), axis=-1)
        known = np.isfinite(scores)
        number = known.sum(axis=1)
        return np.where(known, scores, 0).sum(axis=1) / np.maximum(number, 1), (number > 0).astype(np.float64)

    def metrics_of(self, totals: np.ndarray) -> np.ndarray:
        """METRICS [..., M] from summed totals [..., K].

        Means: over classes and seeds within a case, then over cases. Pooled: for each class and seed over all pixels,
        then their mean; 1 where neither reference nor prediction has any foreground. DROPPED: for each seed over the
        cases that count, then their mean; NaN where a seed has none.
        """
        ends = np.cumsum([self.counts[0].size, 2 * len(self.seeds), 2 * len(self.seeds)])
        pixels, kept, number, means = np.split(totals, ends, axis=-1)
        tp, fp, fn = np.moveaxis(pixels.reshape(*totals.shape[:-1], -1, 3), -1, 0)
        union = tp + fp + fn
        iou = np.where(union > 0, tp / np.maximum(union, 1), 1.0)
        found = dict(zip(MEANS, np.moveaxis(means[..., :-1] / means[..., -1:], -1, 0), strict=True))
        found |= dict(zip(POOLED, ((2 * iou / (1 + iou)).mean(axis=-1), iou.mean(axis=-1)), strict=True))
        dropped = np.where(number > 0.5, kept / np.maximum(number, 1), np.nan)
        dropped = dropped.reshape(*totals.shape[:-1], -1, 2).mean(axis=-2)
        found |= dict(zip(DROPPED, np.moveaxis(dropped, -1, 0), strict=True))
        return np.stack([found[name] for name in METRICS], axis=-1)

    def metrics(self) -> dict[str, float]:
        """Every metric by name, over all cases, classes and seeds."""
        found = self.metrics_of(self.totals().sum(axis=0))
        return dict(zip(METRICS, found.tolist(), strict=True))


def _with(scores: Scores, **changes: Any) -> Scores:
    return Scores(**{**vars(scores), **changes})


def read_rows(path: Path) -> "DataFrame":
    """The table of rows in a `cases.csv` of an arm. Names stay text: neither `007` nor `NA` is touched."""
    import pandas as pd

    text = {"case": str, "group": str, "class": str, "kind": str, "probe": str}
    try:
        return pd.read_csv(path, dtype=text, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StorageError("the table of case scores cannot be read", where=path, found=str(error)) from error


def scores_of(rows: "DataFrame", where: object = "scores") -> Scores:
    """Scores from rows (case, group, seed, class, the metrics, tp, fp, fn), one a case, class and seed.

    Raises DataError where a case lacks a class or a seed, where one is there twice, or a score is not finite.
    """
    needed = ["case", "seed", "class", *CASE_METRICS, *COUNTS]
    missing = [name for name in needed if name not in rows.columns]
    if missing or rows.empty:
        raise DataError("the table of case scores is incomplete", where=where, offenders=missing or ["no rows"])
    cases, classes = tuple(rows["case"].unique()), tuple(rows["class"].unique())
    seeds = tuple(sorted(int(seed) for seed in rows["seed"].unique()))
    order = rows.set_index(["case", "class", "seed"])
    _require_complete(order.index.tolist(), cases, classes, seeds, where)
    import pandas as pd

    order = order.reindex(pd.MultiIndex.from_product([cases, classes, seeds]))
    shape = (len(cases), len(classes), len(seeds))
    values = order[list(CASE_METRICS)].to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        offenders = [" / ".join(map(str, key)) for key in order.index[bad]]
        raise DataError("a score is not a finite number", where=where, offenders=offenders)
    counts = order[list(COUNTS)].to_numpy(dtype=np.float64)
    dice, hd95 = (values[:, CASE_METRICS.index(name)] for name in ("dice", "hd95"))
    further = [*image_scores(counts), *transunet_scores(counts, dice, hd95)]
    values = np.concatenate([values, np.stack(further, axis=1)], axis=1)
    return Scores(
        cases=cases,
        classes=classes,
        seeds=seeds,
        groups=_groups(rows, cases),
        values=values.reshape(*shape, -1),
        counts=counts.reshape(*shape, 3),
    )


def _require_complete(
    found: list[tuple], cases: Sequence[str], classes: Sequence[str], seeds: Sequence[int], where: object
) -> None:
    present = set(found)
    gaps = [(c, k, s) for c in cases for k in classes for s in seeds if (c, k, s) not in present]
    twice = sorted({key for key in found if found.count(key) > 1}) if len(present) < len(found) else []
    if gaps or twice:
        raise DataError(
            "a case lacks a class or a seed, or has one twice",
            where=where,
            offenders=[" / ".join(map(str, key)) for key in gaps + twice],
            remedy="evaluate the arm again",
        )


def _groups(rows: "DataFrame", cases: Sequence[str]) -> tuple[str, ...] | None:
    if "group" not in rows.columns:
        return None
    known = dict(zip(rows["case"], rows["group"].fillna("").astype(str), strict=True))
    groups = tuple(f"group {known[case]}" if known[case] else f"case {case}" for case in cases)
    return None if len(set(groups)) == len(groups) else groups


def common_cases(arms: Mapping[str, Scores], *, intersect: bool = False) -> tuple[dict[str, Scores], int]:
    """The arms on one list of cases, in one order, and how many cases were left out.

    Raises DataError where the lists, the classes, the groups or the references differ; with `intersect` only shared
    cases are kept. Of references that differ, those are found that have another number of pixels (tp + fn).
    """
    names = list(arms)
    first = arms[names[0]]
    common = set(first.cases).intersection(*(scores.cases for scores in arms.values()))
    shared = [case for case in first.cases if case in common]
    offenders = []
    for name, scores in arms.items():
        if set(scores.classes) != set(first.classes):
            raise DataError(
                "the arms were judged on different classes",
                where=name,
                found=", ".join(scores.classes),
                expected=", ".join(first.classes),
            )
        offenders += [f"{case}: judged in {name}, but not in every arm" for case in scores.cases if case not in common]
    if offenders and (not intersect or not shared):
        raise DataError(
            "the arms were judged on different cases, so their means cannot be compared",
            offenders=offenders,
            remedy="evaluate them on the same cases, or ask explicitly for the cases that all share",
        )
    aligned = {name: scores.of_cases(shared).of_classes(first.classes) for name, scores in arms.items()}
    for name, scores in aligned.items():
        _require_same_reference(aligned[names[0]], scores, name if name == names[0] else f"{names[0]} and {name}")
    everything = {case for scores in arms.values() for case in scores.cases}
    return aligned, len(everything) - len(shared)


def _require_same_reference(first: Scores, scores: Scores, where: str) -> None:
    ours, theirs = (part.counts[..., 0] + part.counts[..., 2] for part in (first, scores))
    differ = (ours[:, :, :1] != theirs).any(axis=2)
    if differ.any():
        pairs = [(first.cases[case], first.classes[index]) for case, index in np.argwhere(differ)]
        raise DataError(
            "the arms were judged against different references, so their means cannot be compared",
            where=where,
            offenders=[f"{case} / {name}: tp + fn differs" for case, name in pairs],
            remedy="evaluate them on the same masks, labels and mask rule",
        )
    groups = [part.groups or part.cases for part in (first, scores)]
    together = [[group.index(one) for one in group] for group in groups]
    if together[0] != together[1]:
        placed = zip(first.cases, *together, strict=True)
        raise DataError(
            "the arms were judged with different groups, so cases cannot be resampled together",
            where=where,
            offenders=[f"{case}: its group differs" for case, one, other in placed if one != other],
            remedy="evaluate them with the same groups",
        )
