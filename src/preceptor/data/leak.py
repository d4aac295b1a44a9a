"""The leak score: how much of a mask's size and position its report alone gives away.

Formula. A report becomes the presence (0 or 1) of its tokens and of its ordered token pairs at most four tokens apart
("lower .. lung"), the 512 of them that tell most reports apart. A mask becomes its size (foreground share of the
picture) and its position (centroid row and column as shares of the sides, and the shares of the foreground that lie in
the four quadrants; only masks with foreground have one). Ridge regression predicts each from the report in
cross-validation: five folds, ten below 200 cases, a patient's cases always in one fold; the penalty of a fold is the
one that was best in the other folds.

    R2 = 1 - sum of squared errors / sum of squared errors of the training folds' mean     (position: over its six
                                                                           targets, each scaled to unit variance)
    score = max(R2 of size, R2 of position), cut to 0..1

`chance` is the 95 % quantile of the score when the reports are dealt out at random to the masks (40 times). Reports
that score at least THRESHOLD and more than chance describe the masks. Below FEWEST cases there is no score.

Why it matters: sentences made from ground truth (QaTa-COV19, MosMedData+) are information that nobody has before the
mask is drawn, so that results of a network that reads them are an upper bound.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLD = 0.25
"""Leak score from which on every result carries a warning: a quarter of the masks' variance is in the reports."""

FEWEST = 12
"""Fewer cases than this give no score."""

MOST = 2000
"""Larger sets are sampled down to this many cases, drawn with a fixed seed."""

_TARGETS = 7  # size, then centroid row and column, then four quadrants
_WIDTH = 512
_DEALS = 40
_REACH = 4
_PENALTIES = np.array([1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, np.inf])  # times the mean squared length of the features
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")  # a Han, Kana or Hangul sign is a token


def mask_targets(foreground: NDArray[np.bool_]) -> Array:
    """[7]: area share, centroid row and column (0..1), shares of the foreground in the upper left, upper right, lower
    left and lower right quadrant. foreground: [H, W]. Without foreground the area is 0 and the rest is NaN.
    """
    height, width = foreground.shape
    rows, columns = foreground.sum(1).astype(float), foreground.sum(0).astype(float)
    area = rows.sum()
    if not area:
        return np.array([0.0] + [np.nan] * (_TARGETS - 1))
    top, left = height // 2, width // 2
    quadrants = [foreground[:top, :left], foreground[:top, left:], foreground[top:, :left], foreground[top:, left:]]
    centre = (rows @ (np.arange(height) + 0.5) / height / area, columns @ (np.arange(width) + 0.5) / width / area)
    return np.array([area / foreground.size, *centre, *(quadrant.sum() / area for quadrant in quadrants)])


def report_features(reports: Sequence[str], width: int = _WIDTH) -> Array:
    """[N, D], D <= width: presence of tokens and near token pairs, those nearest to being in half the reports."""
    bags = [_bag(report) for report in reports]
    counts = Counter(feature for bag in bags for feature in bag)
    total = len(reports)
    kept = sorted((f for f, n in counts.items() if 1 < n < total), key=lambda f: (abs(counts[f] - total / 2), f))
    columns = {feature: column for column, feature in enumerate(kept[:width])}
    features = np.zeros((total, len(columns)))
    for row, bag in enumerate(bags):
        features[row, [columns[feature] for feature in bag if feature in columns]] = 1
    return features


def _bag(report: str) -> set[str]:
    tokens = _TOKEN.findall(report.casefold())
    pairs = {f"{token} {later}" for at, token in enumerate(tokens) for later in tokens[at + 1 : at + 1 + _REACH]}
    return pairs | set(tokens)


def leak_score(
    reports: Sequence[str], targets: Array, groups: Sequence[str | None] | None = None, seed: int = 0
) -> dict[str, Any]:
    """How well reports predict mask size and position (formula: top of this file).

    reports: N texts. targets: [N, 7] rows of `mask_targets`. groups: N patients; None is a group of its own.
    Returns `score` (0..1, None for fewer than FEWEST cases), `size_r2`, `position_r2` (may be negative; None where it
    cannot be told), `chance`, `threshold`, `leaks` (bool), `cases`, `distinct_reports`, `grouped`, `message`.
    """
    known = list(groups) if groups is not None else [None] * len(reports)
    texts, masks = list(reports), np.asarray(targets, float).reshape(len(reports), _TARGETS)
    rng = np.random.default_rng(seed)
    if len(texts) > MOST:
        chosen = np.sort(rng.choice(len(texts), MOST, replace=False))
        texts, masks, known = [texts[i] for i in chosen], masks[chosen], [known[i] for i in chosen]
    result: dict[str, Any] = {
        "score": None, "size_r2": None, "position_r2": None, "chance": None, "threshold": THRESHOLD, "leaks": False,
        "cases": len(texts), "distinct_reports": len(set(texts)), "grouped": any(g is not None for g in known),
    }  # fmt: skip
    if len(texts) < FEWEST:
        return {**result, "message": f"too few cases with mask and report for a leak score: {len(texts)} of {FEWEST}"}
    folds = _folds(known, 10 if len(texts) < 200 else 5, rng)
    present = ~np.isnan(masks[:, 1])
    size = _r2(texts, masks[:, :1], folds, rng)
    position = _r2([t for t, p in zip(texts, present, strict=True) if p], masks[present, 1:], folds[present], rng)
    parts = [part for part in (size, position) if part is not None]
    if not parts:
        return {**result, "message": "no leak score: all masks have the same size and position"}
    scores = np.clip(np.max(parts, axis=0), 0, 1)
    score, chance = float(scores[0]), float(np.quantile(scores[1:], 0.95))
    leaks = score >= THRESHOLD and score > chance
    result |= {"score": score, "chance": chance, "leaks": leaks}
    result |= {"size_r2": None if size is None else float(size[0])}
    result |= {"position_r2": None if position is None else float(position[0])}
    return {**result, "message": _message(result)}


def _message(leak: dict[str, Any]) -> str:
    parts = ", ".join(
        f"{name} R2 {leak[key]:.2f}"
        for name, key in (("size", "size_r2"), ("position", "position_r2"))
        if leak[key] is not None
    )
    told = f"leak score {leak['score']:.2f} ({parts}; threshold {leak['threshold']}, chance {leak['chance']:.2f})"
    if leak["leaks"]:
        return (
            f"the reports describe the mask: {told}. A network that reads them is told part of the answer: take its "
            "result as an upper bound, and judge the student against its control"
        )
    return f"the reports hardly give away size and position of the mask: {told}"


def _folds(groups: Sequence[str | None], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[N] fold of each case; groups, the largest first, go to the emptiest fold, equal ones in random order."""
    members: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(f"case {at}" if group is None else f"group {group}", []).append(at)
    order = sorted(rng.permutation(np.array(list(members), dtype=object)), key=lambda name: -len(members[name]))
    folds, filled = np.zeros(len(groups), np.int64), np.zeros(count, np.int64)
    for name in order:
        fold = int(filled.argmin())
        folds[members[name]] = fold
        filled[fold] += len(members[name])
    return folds


def _r2(texts: Sequence[str], targets: Array, folds: NDArray[np.int64], rng: np.random.Generator) -> Array | None:
    """[1 + deals]: cross-validated R2, first with each mask's own report, then with reports dealt out at random.

    None where no target varies or there are too few cases.
    """
    spread = targets.std(axis=0) if len(targets) else np.zeros(0)
    varied = spread > 1e-6
    if len(targets) < FEWEST or not varied.any() or len(np.unique(folds)) < 2:
        return None
    scaled = ((targets - targets.mean(0)) / np.where(varied, spread, 1))[:, varied]
    deals = [scaled] + [scaled[rng.permutation(len(scaled))] for _ in range(_DEALS)]
    features = report_features(texts)
    if not features.shape[1]:
        return np.zeros(1 + _DEALS)
    errors = _errors(features, np.stack(deals, 1), folds)  # [penalty, fold, deal]
    others = errors.sum(1, keepdims=True) - errors
    best = others.argmin(0)
    reached = np.take_along_axis(errors, best[None], 0)[0].sum(0)
    result: Array = 1 - reached / errors[-1].sum(0)
    return result


def _errors(features: Array, targets: Array, folds: NDArray[np.int64]) -> Array:
    """[P, F, deals]: squared errors of ridge regression, by penalty and held-out fold. targets: [N, deals, T]."""
    names = np.unique(folds)
    flat = targets.reshape(len(targets), -1)
    errors = np.empty((len(_PENALTIES), len(names), targets.shape[1]))
    for at, fold in enumerate(names):
        train, held = folds != fold, folds == fold
        mean_x, mean_y = features[train].mean(0), flat[train].mean(0)
        x, y, new = features[train] - mean_x, flat[train] - mean_y, features[held] - mean_x
        left, values, right = np.linalg.svd(x, full_matrices=False)
        scale = max(float((values**2).sum()) / len(x), 1e-12)
        inside, outside = left.T @ y, new @ right.T
        for row, penalty in enumerate(_PENALTIES):
            shrink = values / (values**2 + penalty * scale)
            predicted = mean_y + outside @ (shrink[:, None] * inside)
            errors[row, at] = ((predicted - flat[held]) ** 2).reshape(-1, *targets.shape[1:]).sum((0, 2))
    return errors
