"""Ranks and how far they hold: against a slow loop over resamples; ties; Holm for each metric by itself."""

from typing import Any

import numpy as np
import pytest

from preceptor.evaluation.ranking import Contestant, rank_stability, ranking
from preceptor.evaluation.scores import METRICS, Scores, scores_of
from preceptor.evaluation.statistics import BLOCK, holm
from preceptor.evaluation.summary import gain_between
from preceptor.recipe_evaluate import EvaluateRecipe

from .fabricate import fabricate_rows

SETTINGS = EvaluateRecipe(bootstrap=400)


def scores(name: str, gain: float = 0.0, **options: Any) -> Scores:
    return scores_of(fabricate_rows(**{"cases": 16, "seeds": (0, 1), "arm": name, "gain": gain, **options}))


def drawn_slowly(found: dict[str, Scores], metric: str, resamples: int) -> np.ndarray:
    """Values [resamples, names] of a metric on each resample of the units, one case after the other."""
    first = next(iter(found.values()))
    units = first.groups or first.cases
    names = list(dict.fromkeys(units))
    noise = np.random.default_rng(0)
    assert resamples * len(names) <= BLOCK
    times = noise.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    values = np.zeros((resamples, len(found)))
    for row, counts in enumerate(times):
        often = dict(zip(names, counts, strict=True))
        for column, part in enumerate(found.values()):
            each = part.per_case(metric)
            weights = [often[unit] for unit in units]
            values[row, column] = sum(w * v for w, v in zip(weights, each, strict=True)) / sum(weights)
    return values


@pytest.mark.parametrize("metric", ["dice", "hd95"])
@pytest.mark.parametrize("groups", [None, 7])
def test_ranks_of_resamples_are_those_of_a_slow_loop(metric: str, groups: int | None) -> None:
    found = {name: scores(name, gain, groups=groups) for name, gain in (("a", 0.0), ("b", 0.004), ("c", -0.01))}
    told = rank_stability(found, metric, SETTINGS)
    values = drawn_slowly(found, metric, SETTINGS.bootstrap) * (-1 if metric == "dice" else 1)
    for column, name in enumerate(found):
        ranks = sorted(1 + sum(other < row[column] - 1e-12 for other in row) for row in values)
        assert told[name]["ranks"] == pytest.approx([ranks.count(rank) / len(ranks) for rank in (1, 2, 3)])
        assert told[name]["first"] == pytest.approx(ranks.count(1) / len(ranks))
        assert told[name]["rank_low"] == ranks[int(np.ceil(0.025 * len(ranks))) - 1]
        assert told[name]["rank_high"] == ranks[int(np.ceil(0.975 * len(ranks))) - 1]
    whole = {name: part.metrics()[metric] * (-1 if metric == "dice" else 1) for name, part in found.items()}
    assert [told[name]["rank"] for name in sorted(whole, key=lambda name: whole[name])] == [1, 2, 3]


def test_equal_networks_share_the_better_rank_and_the_first_place() -> None:
    one, worse = scores("a"), scores("a", -0.1)
    told = rank_stability({"x": one, "y": one, "z": worse}, "dice", SETTINGS)
    assert [told[name]["rank"] for name in "xyz"] == [1, 1, 3]
    assert [told[name]["first"] for name in "xyz"] == [1.0, 1.0, 0.0]
    assert told["y"]["ranks"] == [1.0, 0.0, 0.0]
    assert (told["z"]["rank_low"], told["z"]["rank_high"]) == (3, 3)


def test_ranks_of_resamples_add_up_and_the_interval_holds_the_rank() -> None:
    found = {name: scores(name, gain) for name, gain in zip("abcd", (0.0, 0.001, 0.002, 0.05), strict=True)}
    for told in rank_stability(found, "dice", SETTINGS).values():
        assert sum(told["ranks"]) == pytest.approx(1)
        assert 1 <= told["rank_low"] <= told["rank_high"] <= 4
    assert rank_stability({}, "dice", SETTINGS) == {}


def test_one_case_alone_gives_ranks_that_cannot_vary() -> None:
    told = rank_stability({"a": scores("a", cases=1), "b": scores("b", 0.2, cases=1)}, "dice", SETTINGS)
    assert told["b"]["ranks"] == [1.0, 0.0]


def contestants() -> list[Contestant]:
    return [
        Contestant("teacher", "teacher", scores("t", 0.1)),
        Contestant("control", "control", scores("c")),
        Contestant("good", "student", scores("g", 0.05), "control"),
        Contestant("bad", "student", scores("b", -0.05), "control"),
        Contestant("idle", "student", scores("i", 0.0, seeds=(0,)), "control"),
    ]


def test_entries_come_from_best_to_worst_and_teachers_have_no_rank() -> None:
    entries = ranking(contestants(), SETTINGS)
    assert entries[0]["name"] == "teacher"
    assert entries[0]["rank"] is None
    assert [entry["dice"]["mean"] for entry in entries] == sorted((e["dice"]["mean"] for e in entries), reverse=True)
    assert sorted(entry["rank"] for entry in entries[1:]) == [1, 2, 3, 4]
    assert ranking(contestants(), SETTINGS, ("dice", "hd95"), "hd95")[0]["name"] == "teacher"


def test_gains_are_those_of_a_single_comparison_with_holm_over_all_of_a_metric() -> None:
    entrants = {entrant.name: entrant for entrant in contestants()}
    entries = {entry["name"]: entry for entry in ranking(list(entrants.values()), SETTINGS)}
    for metric in ("dice", "hd95"):
        alone = {
            name: gain_between(entrants[name].scores, entrants["control"].scores, SETTINGS, 0)[metric]
            for name in ("good", "bad", "idle")
        }
        corrected = holm([gain["p"] for gain in alone.values()])
        for (name, gain), p in zip(alone.items(), corrected, strict=True):
            assert entries[name]["gain"][metric] == {**gain, "p_holm": p}
            assert p >= gain["p"]
    assert entries["control"]["gain"] == entries["teacher"]["gain"] == {}


def test_an_entry_has_what_a_table_needs() -> None:
    entry = ranking(contestants(), SETTINGS, METRICS[:3])[1]
    assert set(METRICS[:3]) <= set(entry)
    assert set(entry["per_class"]["infection"]) == set(METRICS[:3])
    assert set(entry["dice"]) == {"mean", "low", "high"}
    assert entry["seeds"] == [0, 1]
    assert len(entry["per_seed"]) == 2


def test_too_few_units_give_no_p_and_still_ranks() -> None:
    few = [
        Contestant("control", "control", scores("c", cases=4)),
        Contestant("x", "student", scores("x", 0.1, cases=4), "control"),
    ]
    entry = ranking(few, SETTINGS)[0]
    assert entry["gain"]["dice"]["p"] is None
    assert entry["gain"]["dice"]["p_holm"] is None
    assert entry["rank"] == 1
