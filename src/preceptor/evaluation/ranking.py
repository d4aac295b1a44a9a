"""Many networks on the same cases as one ranked table, and how far the ranks would hold on other cases.

Ranks are drawn again for every bootstrap resample of the cases (or patients), the same resample for all networks:
Wiesenfarth et al., Methods and visualizations for analyzing challenge results, Scientific Reports 2021 (arXiv
1910.05121).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preceptor.evaluation.scores import LOWER_IS_BETTER, METRICS, Scores
from preceptor.evaluation.statistics import bootstrap, holm, resampled
from preceptor.evaluation.summary import gain_between
from preceptor.recipe_evaluate import EvaluateRecipe


@dataclass(frozen=True)
class Contestant:
    """One network of a comparison: its scores, what it is, and the contestant that is its control, if any."""

    name: str
    role: str
    scores: Scores
    control: str = ""


def ranking(
    contestants: Sequence[Contestant],
    settings: EvaluateRecipe,
    metrics: Sequence[str] = ("dice", "hd95"),
    primary: str = "dice",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The contestants from best to worst by `primary`, all judged on the same cases in the same order.

    Each entry: name, role, each metric {mean, low, high}, per_class {class: {metric: ...}}, seeds, per_seed, kinds;
    rank (of students and controls; None for teachers) and what else `rank_stability` tells; gain {metric: {mean, low,
    high, p, p_holm, ...}} over its control, Holm-corrected over all contestants for each metric, and empty for those
    without control.
    """
    known = {contestant.name: contestant for contestant in contestants}
    entries = {contestant.name: _entry(contestant, settings, metrics, seed) for contestant in contestants}
    for contestant in contestants:
        if contestant.control:
            against = known[contestant.control].scores
            gain = gain_between(contestant.scores, against, settings, seed)
            entries[contestant.name]["gain"] = {name: gain[name] for name in metrics}
    _correct(entries, metrics)
    ranked = {name: contestant.scores for name, contestant in known.items() if contestant.role != "teacher"}
    for name, stability in rank_stability(ranked, primary, settings, seed).items():
        entries[name] |= stability
    sign = 1 if primary in LOWER_IS_BETTER else -1
    return sorted(entries.values(), key=lambda entry: sign * entry[primary]["mean"])


def _entry(contestant: Contestant, settings: EvaluateRecipe, metrics: Sequence[str], seed: int) -> dict[str, Any]:
    scores = contestant.scores

    def found(part: Scores) -> dict[str, Any]:
        values = bootstrap(part.totals(), part.metrics_of, settings.bootstrap, settings.confidence, seed)
        named = dict(zip(METRICS, values, strict=True))
        return {name: named[name]._asdict() for name in metrics}

    return {
        "name": contestant.name,
        "role": contestant.role,
        "control": contestant.control,
        "seeds": list(scores.seeds),
        **found(scores),
        "per_class": {name: found(scores.of_class(index)) for index, name in enumerate(scores.classes)},
        "per_seed": [dict(scores.of_seed(index).metrics()) for index in range(len(scores.seeds))],
        "kinds": scores.kinds,
        "gain": {},
        "rank": None,
    }


def _correct(entries: Mapping[str, dict[str, Any]], metrics: Sequence[str]) -> None:
    for metric in metrics:
        gained = [entry["gain"][metric] for entry in entries.values() if entry["gain"]]
        for gain, p in zip(gained, holm([gain["p"] for gain in gained]), strict=True):
            gain["p_holm"] = p


def rank_stability(
    scores: Mapping[str, Scores], metric: str, settings: EvaluateRecipe, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """For each name rank (1 is best, ties share the better rank), rank_low and rank_high (the bounds within which the
    rank lies in `settings.confidence` of the resamples), ranks (the share of resamples at each rank, the first one
    first) and first (the share of resamples that it leads, alone or with others).
    """
    if not scores:
        return {}
    index = METRICS.index(metric)
    sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
    centres, draws = [], []
    for part in scores.values():
        totals = part.totals()
        centres.append(part.metrics_of(totals.sum(axis=0))[index])
        draws.append(part.metrics_of(resampled(totals, settings.bootstrap, seed))[:, index])
    ranks = _ranks(sign * np.array(centres)[None])[0]
    drawn = _ranks(sign * np.stack(draws, axis=1))
    tail = round((1 - settings.confidence) / 2, 12)  # else 0.95 leaves a little more than 0.025
    tails = tail, 1 - tail
    low, high = np.quantile(drawn, tails, axis=0, method="inverted_cdf")
    return {
        name: {
            "rank": int(ranks[number]),
            "rank_low": int(low[number]),
            "rank_high": int(high[number]),
            "ranks": (np.bincount(drawn[:, number], minlength=len(scores) + 1)[1:] / len(drawn)).tolist(),
            "first": float((drawn[:, number] == 1).mean()),
        }
        for number, name in enumerate(scores)
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each row [R, N], the smallest 1; equal values share the smallest of their ranks."""
    return 1 + (values[:, None, :] < values[:, :, None] - 1e-12).sum(axis=2)
