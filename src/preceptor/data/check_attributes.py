"""Checks of coded attributes: how many cases say each of them, and values that are no facts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from preceptor.data.case import Case, Finding
from preceptor.data.check_findings import finding
from preceptor.recipe_data import ReportRecipe
from preceptor.text.attributes import ATTRIBUTES
from preceptor.text.coding import AttributeReader


def check_attributes(cases: Sequence[Case], reports: ReportRecipe) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, facts) on the attributes of the cases, read as `reports` says.

    A case that says none is a warning, since its network is shown that nothing is known; an error where none of those
    that train says any.
    """
    reader = AttributeReader(reports.coding)
    facts = {case.name: _known(reader, case.words("attributes")) for case in cases}
    counts = Counter(name for known in facts.values() for name in known)
    silent = [name for name, known in facts.items() if not known]
    told = {
        "cases": len(cases) - len(silent),
        "of": len(cases),
        "complete": sum(len(known) == len(ATTRIBUTES) for known in facts.values()),
        "known": {name: counts[name] for name in ATTRIBUTES},
    }
    if not any(facts[case.name] for case in cases if case.split in ("train", "")):
        found = f"no case of those that train says any, among {len(cases)}"
        remedy = "`reports.coding: notes` reads free text, `reports.attributes` a table; or write sentences"
        return [finding("error", "no-attributes", "attributes", found, remedy)], {"attributes": told}
    remedy = "it takes part with all of them unknown; `reports.coding` and `reports.attributes` say what is read"
    findings = [finding("warning", "unknown-attributes", name, "the case says none", remedy) for name in silent]
    for case, known in facts.items():
        odd = [f"{name} {value:g}" for name, value in known.items() if name != "number" and value not in (0, 1)]
        if odd:
            found = f"{', '.join(odd)}; 0 and 1 are expected"
            findings.append(finding("warning", "odd-attribute", case, found, "only `number` counts"))
    return findings, {"attributes": told}


def _known(reader: AttributeReader, text: str) -> dict[str, float]:
    return {name: value for name, value in reader.facts(text).items() if value is not None}
