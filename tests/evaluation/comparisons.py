"""The content of a `comparison.json`, made up for tests from rows of scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.evaluation.comparison_text import answer, warnings
from preceptor.evaluation.metrics import POLICY
from preceptor.evaluation.ranking import Contestant, ranking
from preceptor.evaluation.scores import scores_of
from preceptor.recipe_evaluate import EvaluateRecipe

from .fabricate import fabricate_rows

METRICS = ("dice", "hd95", "iou", "surface_dice")
GAINS = {"kd": 0.012, "at": 0.0, "dkd": -0.02, "review": 0.03}


def fabricate_result(
    students: Mapping[str, float] | None = None,
    gains: Mapping[str, float] | None = None,
    teacher: float = 0.05,
    groups: int | None = 20,
    classes: Sequence[str] = ("right_ventricle", "myocardium"),
    seeds: Mapping[str, Sequence[int]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A matrix of one teacher, students (their control's gain) and distillers (the gain over it); 40 volumes."""
    chosen = {"fcn_r18": 0.0} if students is None else students
    gains, seeds = GAINS if gains is None else gains, seeds or {}

    def scores(name: str, gain: float) -> Any:
        return scores_of(fabricate_rows(40, seeds.get(name, (0, 1, 2)), name, classes, groups, gain))

    cost = {"parameters": 2_000_000, "gflops": 3.0, "latency_ms": 6.0, "memory_mb": 50.0, "epochs": 30, "minutes": 4.0}
    found = [Contestant("teacher-wide", "teacher", scores("wide", teacher))]
    facts: dict[str, dict[str, Any]] = {"teacher-wide": {"teacher": "wide", **cost, "gflops": 40.0}}
    for number, (student, base) in enumerate(chosen.items(), start=1):
        own = {**cost, "gflops": 3.0 * number, "student": student}
        found.append(Contestant(f"control-{student}", "control", scores(student, base)))
        facts[f"control-{student}"] = own
        for distiller, gain in gains.items():
            name = f"{student}--wide--{distiller}"
            found.append(Contestant(name, "student", scores(name, base + gain), f"control-{student}"))
            facts[name] = {**own, "teacher": "wide", "distiller": distiller, "taught_by": ["teacher-wide"]}
    settings = EvaluateRecipe(bootstrap=300)
    entries = ranking(found, settings, METRICS)
    for entry in entries:
        entry |= {
            "student": "",
            "teacher": "",
            "distiller": "",
            "taught_by": [],
            "report": None,
            **facts[entry["name"]],
        }
    result: dict[str, Any] = {
        "name": "hearts",
        "kind": "matrix",
        "description": "Distillations of a small network",
        "metrics": list(METRICS),
        "primary": "dice",
        "cases": 40,
        "groups": groups,
        "left_out": 0,
        "classes": list(classes),
        "confidence": settings.confidence,
        "resamples": settings.bootstrap,
        "tolerance": 2.0,
        "tolerances": [2.0],
        "unit": "mm",
        "scored": "volume",
        "splits": ["test"],
        "licence": "CC BY 4.0",
        "data": {"layout": "acdc"},
        "policy": POLICY,
        "entries": entries,
        "elsewhere": {},
        "unfinished": [],
        **changes,
    }
    return {**result, "answer": answer(result), "warnings": warnings(result)}
