"""Checks of reports: missing, empty, shared, too long for the encoder, or damaged by a wrong encoding."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from preceptor.data.case import Case, Finding
from preceptor.data.check_findings import Level, finding
from preceptor.recipe_data import DataRecipe, ReportRecipe

_CHUNK = 256


class TokenCounter(Protocol):
    """What the check needs of an encoder. limit: tokens that it can take, None where there is no bound."""

    @property
    def limit(self) -> int | None: ...

    def count_tokens(self, texts: list[str]) -> list[int]: ...


def check_reports(
    cases: Sequence[Case], data: DataRecipe, reports: ReportRecipe | None, encoder: TokenCounter | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, facts) on the reports. reports: None where no network of the recipe reads reports.

    Without an encoder only the hashed default is made; others would have to be loaded, so their lengths stay
    uncounted, and a note says so.
    """
    written = [case for case in cases if case.report and case.report.strip()]
    texts = [str(case.report) for case in written]
    shared = Counter(texts)
    facts: dict[str, Any] = {"cases": len(written), "distinct": len(shared)}
    findings = _absent(cases, written, data, reports is not None)
    findings += _shared(shared)
    findings += [item for case in written for item in _odd(case)]
    if reports is not None and written:
        counter = encoder if encoder is not None else _default_counter(reports)
        if counter is None:
            found = f"the encoder {reports.encoder} is not loaded"
            remedy = "`preceptor embed` loads it, and counts"
            findings.append(finding("note", "uncounted-reports", "reports", found, remedy))
        else:
            longer, facts["tokens"] = _lengths(written, reports, counter)
            findings += longer
    return findings, {"reports": facts}


def _default_counter(reports: ReportRecipe) -> TokenCounter | None:
    if reports.encoder != "hashed":
        return None
    from preceptor.text.encoders import build_encoder

    return build_encoder(reports)


def _absent(cases: Sequence[Case], written: Sequence[Case], data: DataRecipe, needed: bool) -> list[Finding]:
    stops = needed and data.missing_text == "error"
    level: Level = "error" if stops else "warning"
    if stops:
        remedy = "write a report for each, or let them take part with an empty one: `data.missing_text: empty`"
        consequence = "the teacher needs one"
    else:
        remedy = "" if needed else "write them if a network is to read reports"
        consequence = "it takes part with an empty one" if needed else "some cases have one"
    if not written:
        if not needed or not cases:
            return []
        return [finding(level, "no-reports", "reports", f"none of {len(cases)} cases; {consequence}", remedy)]
    found = {"no-report": f"no report; {consequence}", "empty-report": f"the report is empty; {consequence}"}
    result = []
    for case in cases:
        if case.report is None or not case.report.strip():
            code = "no-report" if case.report is None else "empty-report"
            result.append(finding(level, code, case.name, found[code], remedy))
    return result


def _shared(shared: Counter[str]) -> list[Finding]:
    total, most = shared.total(), shared.most_common(1)
    if total < 2 or len(shared) == total:
        return []
    if len(shared) == 1:
        found = f"{total} cases, one text: {_cut(most[0][0])}"
        return [finding("warning", "one-report", "reports", found, "a network cannot learn from it; write real ones")]
    found = f"{total} cases share {len(shared)} distinct reports; the most frequent is that of {most[0][1]} cases"
    return [finding("note", "duplicate-report", "reports", f"{found}: {_cut(most[0][0])}")]


def _cut(text: str, width: int = 60) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _odd(case: Case) -> list[Finding]:
    text = str(case.report)
    signs = sorted({sign for sign in text if _is_damage(sign)})
    if signs:
        found = "characters " + ", ".join(f"U+{ord(sign):04X}" for sign in signs[:5])
    elif (mended := _mojibake(text)) is not None:
        found = f"{_cut(text)} reads as {_cut(mended)} when decoded as UTF-8"
    else:
        return []
    remedy = "save the reports as UTF-8 from the program that wrote them; do not repair them by hand"
    return [finding("warning", "odd-characters", case.name, found, remedy)]


def _is_damage(sign: str) -> bool:
    code = ord(sign)
    control = code < 32 and sign not in "\t\n\r"
    return control or 0x7F <= code < 0xA0 or 0xE000 <= code < 0xF900 or sign in "\ufffd\ufeff"


def _mojibake(text: str) -> str | None:
    """The text as it was meant, where its UTF-8 bytes were read as Windows-1252; else None."""
    try:
        mended = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None
    return mended if mended != text else None


def _lengths(
    cases: Sequence[Case], reports: ReportRecipe, counter: TokenCounter
) -> tuple[list[Finding], dict[str, Any]]:
    counts: list[int] = []
    for at in range(0, len(cases), _CHUNK):
        counts += counter.count_tokens([str(case.report) for case in cases[at : at + _CHUNK]])
    longest, limit = max(counts), counter.limit
    kept = reports.length if limit is None else min(reports.length, limit)
    cut = [(case, count) for case, count in zip(cases, counts, strict=True) if count > kept]
    low, middle, high = (int(value) for value in np.percentile(counts, [0, 50, 95], method="higher"))
    facts: dict[str, int | None] = {
        "limit": limit,
        "shortest": low,
        "median": middle,
        "percentile_95": high,
        "longest": longest,
        "kept": kept,
    }
    facts["cut"] = len(cut)
    if limit is None or longest <= limit:
        remedy = f"`reports.length: {longest}` keeps all, `{high}` keeps 95 %"
    else:
        remedy = f"`reports.length: {limit}` is all that the encoder takes; shorten the reports"
    remedy = f"{len(cut)} of {len(cases)} reports lose their end; {remedy}"
    return [
        finding("warning", "long-report", case.name, f"{count} tokens, {kept} are kept", remedy) for case, count in cut
    ], facts
