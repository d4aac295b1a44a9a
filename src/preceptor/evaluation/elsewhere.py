"""What arms reach on another data set, and what they lose on the way there from the recipe's own.

The two sets share no case, so that a fall is a difference of two means: cases (or groups) of each set are resampled on
their own, and the interval holds the middle of the differences (Efron and Tibshirani 1993, chapter 16).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from preceptor.evaluation.scores import METRICS, Scores, scores_of
from preceptor.evaluation.statistics import Interval, resampled
from preceptor.evaluation.summary import summarise
from preceptor.recipe_evaluate import EvaluateRecipe

if TYPE_CHECKING:
    from pandas import DataFrame


def summarise_elsewhere(
    arms: "Mapping[str, DataFrame]",
    home: "Mapping[str, DataFrame]",
    *,
    name: str,
    classes: Mapping[str, tuple[str, ...]],
    settings: EvaluateRecipe,
    unshared: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
    values: str = "",
    **further: Any,
) -> dict[str, Any]:
    """`summarise` of what arms scored on another data set, with `drop`: what each arm lost of its Dice on the way.

    arms, home: tables of rows by arm, there and on the recipe's own data. classes: of the other set, with the networks'
    classes that count as each; a fall is told of those that are one class here and there. unshared: the recipe's
    classes that are not judged there. left_out: arms that cannot be shown what they need. values: how images become the
    networks' input where that differs from home. further: for `summarise`.
    """
    summary = summarise(arms, name=name, settings=settings, **{**further, "licence": ""})
    same = {theirs: ours[0] for theirs, ours in classes.items() if len(ours) == 1}
    drop = {}
    for arm, rows in arms.items() if same else ():
        there = scores_of(rows, arm).of_classes(list(same))
        drop[arm] = fall(scores_of(home[arm], arm).of_classes(list(same.values())), there, settings)
    told = []
    if unshared:
        told.append(f"Not judged, since {name} does not label them: {', '.join(unshared)}.")
    if any(len(ours) > 1 for ours in classes.values()):
        joined = "; ".join(f"{theirs} is {' with '.join(ours)}" for theirs, ours in classes.items() if len(ours) > 1)
        told.append(f"Classes were joined: {joined}.")
    if values:
        told.append(f"Images were prepared otherwise than at home: {values}.")
    if left_out:
        told.append(f"Left out, since {name} has nothing to show them: {', '.join(left_out)}.")
    once = "One seed only"  # said at home already
    summary["warnings"] = told + [line for line in summary["warnings"] if not line.startswith(once)]
    return {
        **summary,
        "licence": further.get("licence", ""),
        "counted": {theirs: list(ours) for theirs, ours in classes.items()},
        "unshared": list(unshared),
        "left_out": list(left_out),
        "drop": drop,
        "drop_classes": list(same),
    }


def fall(home: Scores, there: Scores, settings: EvaluateRecipe, seed: int = 0) -> dict[str, float]:
    """Mean Dice at home minus mean Dice there, with its percentile interval; NaN bounds where one unit is all."""
    dice = METRICS.index("dice")
    means = [float(part.metrics_of(part.totals().sum(axis=0))[dice]) for part in (home, there)]
    low = high = float("nan")
    if min(len(part.totals()) for part in (home, there)) > 1:
        draws = [
            part.metrics_of(resampled(part.totals(), settings.bootstrap, seed + number))[:, dice]
            for number, part in enumerate((home, there))
        ]
        tails = [(1 - settings.confidence) / 2, (1 + settings.confidence) / 2]
        low, high = np.quantile(draws[0] - draws[1], tails).tolist()
    return {**Interval(means[0] - means[1], low, high)._asdict(), "home": means[0], "there": means[1]}
