"""The check of a data set before any compute: every fault with all its offenders, facts, and the leak score.

Files are read once, two at a time, and nothing of their pixels is kept, so that memory does not grow with the set
beyond a few hundred bytes a case.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.annotations import REPORT_CODES
from preceptor.data.case import Case, CaseSet, Finding
from preceptor.data.check_attributes import check_attributes
from preceptor.data.check_files import ImageRecord, Inspection, inspect_case
from preceptor.data.check_findings import Level, finding, render_findings, wrap
from preceptor.data.check_masks import check_masks
from preceptor.data.check_overlays import add_overlays
from preceptor.data.check_reports import TokenCounter, check_reports
from preceptor.data.check_splits import check_splits
from preceptor.data.check_volumes import check_volumes, once_a_volume
from preceptor.data.leak import leak_score
from preceptor.data.masks import label_codes
from preceptor.data.splits import assign_splits
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe, ReportRecipe

Progress = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, what is being done)."""

STRETCH = 1.25
"""Images whose sides are stretched unequally by more than this to reach the network's input are named."""


@dataclass(frozen=True)
class CheckReport:
    """What a check found. facts: JSON-like; leak: of `leak.leak_score`, None where no case has a report.

    contents: case name to `content_hash` of its image; without unreadable and constant ones.
    """

    findings: tuple[Finding, ...]
    facts: dict[str, Any]
    leak: dict[str, Any] | None
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops a run."""
        return tuple(item for item in self.findings if item.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What every result should carry or a person should look at."""
        return tuple(item for item in self.findings if item.level == "warning")

    def to_dict(self) -> dict[str, Any]:
        """All findings, facts and the leak score as plain values, for `data.json`."""
        return {"findings": [asdict(item) for item in self.findings], "facts": self.facts, "leak": self.leak}

    def raise_errors(self) -> None:
        """Raise one DataError that lists every kind of error, the first 20 offenders of each; nothing if none."""
        if self.errors:
            raise DataError(
                "the data set cannot be used as it is",
                where=self.facts.get("root"),
                found=f"{len(self.errors)} errors\n{render_findings(self.errors)}",
                remedy="mend the data or declare what is meant; `preceptor check DATA --json FILE` keeps all findings",
            )


def check(
    case_set: CaseSet,
    data: DataRecipe,
    reports: ReportRecipe | None,
    encoder: TokenCounter | None = None,
    progress: Progress | None = None,
    workers: int = 2,
    overlays: Path | None = None,
    attributes: ReportRecipe | None = None,
) -> CheckReport:
    """Check a data set.

    case_set: as its layout was read; its cases are judged in the splits that `data.split` makes of them, and a note
    says so where it moves any. reports: None where no network of the recipe reads reports.
    encoder: counts tokens; without one the hashed default is used, and other encoders are not loaded.
    overlays: folder for pictures of the first 20 cases whose image and mask do not fit; none are written without it.
    attributes: how they are read; None where no network of the recipe is shown attributes.
    Raises RecipeError where `data.labels`, `data.mask_rule` or `data.split` contradict themselves.
    """
    label_codes(data.labels, data.ignore)
    findings = _of_layout(case_set, reports is not None)
    cases, made = _with_splits(case_set, data)
    findings += made + _without_mask(cases, data)
    facts: dict[str, Any] = {"root": str(case_set.root), "layout": case_set.layout, "cases": len(cases)}
    facts |= {"licence": data.licence, "source": data.source}
    usable, of_volumes = check_volumes(cases)
    findings += of_volumes
    inspections = list(_inspections(usable, case_set, data, progress, workers))
    findings += once_a_volume((item for seen in inspections for item in seen.findings), cases)
    images = [seen.image for seen in inspections if seen.image is not None]
    contents = {image.case: image.content for image in images if image.content}
    for found, more in (
        _check_images(images, data, any(case.volume for case in cases)),
        check_masks([seen.mask for seen in inspections if seen.mask is not None], data, case_set.labels),
        check_splits(cases, data, contents),
        check_reports(cases, data, reports, encoder),
        check_attributes(cases, attributes) if attributes is not None else ([], {}),
    ):
        findings += found
        facts |= more
    leak = _leak(cases, inspections)
    if leak is not None and leak["leaks"]:
        findings.append(finding("warning", "leak", "reports", leak["message"]))
    if overlays is not None:
        findings = add_overlays(findings, cases, overlays)
    return CheckReport(tuple(findings), facts, leak, contents)


def _of_layout(case_set: CaseSet, reads: bool) -> list[Finding]:
    """The layout's findings with places relative to the root; without a reader of reports, reports stop nothing."""
    prefix = f"{case_set.root}/"
    result = [replace(item, where=item.where.removeprefix(prefix)) for item in case_set.findings]
    if reads:
        return result
    return [
        replace(item, level="warning") if item.code in REPORT_CODES and item.level == "error" else item
        for item in result
    ]


def _without_mask(cases: Sequence[Case], data: DataRecipe) -> list[Finding]:
    lost = [case for case in cases if case.mask is None]
    if not cases:
        return [finding("error", "no-cases", data.root, "0 cases", "check the folder and `data.layout`")]
    if len(lost) == len(cases):
        remedy = "training and judging need masks; to segment images use `preceptor predict`"
        return [finding("error", "no-mask", "masks", f"none of {len(cases)} cases has one", remedy)]
    level: Level = "warning" if data.drop_unpaired else "error"
    remedy = "" if data.drop_unpaired else "add it, or leave such cases out: `data.drop_unpaired: true`"
    told = f"no mask{'; left out' if data.drop_unpaired else ''}"
    return [finding(level, "no-mask", case.name, told, remedy) for case in lost]


def _with_splits(case_set: CaseSet, data: DataRecipe) -> tuple[tuple[Case, ...], list[Finding]]:
    cases = case_set.cases
    try:
        divided = assign_splits(cases, data.split)
    except DataError as error:
        found = error.what + (f"; found {error.found}" if error.found is not None else "")
        places = error.offenders or (error.where or "data.split",)
        return cases, [finding("error", "split-failed", place, found, error.remedy) for place in places]
    before = {case.name: case.split for case in cases}
    moved = Counter(case.split for case in divided if case.split != before[case.name])
    if not moved:
        return divided, []
    told = ", ".join(f"{count} to {split or 'none'}" for split, count in sorted(moved.items()))
    found = f"{told}; rule {data.split.rule}, validation {data.split.validation:g}, test {data.split.test:g}"
    return divided, [finding("note", "split-made", "data.split", f"{found}, seed {data.split.seed}")]


def _inspections(
    cases: Sequence[Case], case_set: CaseSet, data: DataRecipe, progress: Progress | None, workers: int
) -> Iterator[Inspection]:
    """Inspections in the order of the cases; at most four a worker are ahead of the consumer."""
    waiting: deque[Future[Inspection]] = deque()
    coming = iter(cases)
    with ThreadPoolExecutor(workers) as pool:
        for done in range(1, len(cases) + 1):
            for case in islice(coming, 4 * workers - len(waiting)):
                waiting.append(pool.submit(inspect_case, case, data, case_set.root))
            yield waiting.popleft().result()
            if progress is not None:
                progress(done, len(cases), "checking images and masks")


def _check_images(
    images: Sequence[ImageRecord], data: DataRecipe, volumes: bool = False
) -> tuple[list[Finding], dict[str, Any]]:
    if not images:
        return [], {}
    shapes = Counter(image.shape for image in images)
    spacings = Counter(image.spacing for image in images if image.spacing is not None)
    facts: dict[str, Any] = {
        "sizes": {f"{height} x {width}": count for (height, width), count in shapes.most_common(10)},
        "distinct_sizes": len(shapes),
        "spacings_mm": {f"{row:g} x {column:g}": count for (row, column), count in spacings.most_common(10)},
        "modes": dict(Counter(image.mode for image in images).most_common()),
    }
    findings = []
    height, width = data.size
    stretched = {image.case: max(s := image.shape[0] * width / (image.shape[1] * height), 1 / s) for image in images}
    far = [name for name, stretch in stretched.items() if stretch > STRETCH]
    if len(shapes) > 1 or far:
        found = f"{len(shapes)} sizes, from {_size(min(shapes))} to {_size(max(shapes))}; all become {height} x {width}"
        if far:
            found += f", which stretches {len(far)} of {len(images)} by more than {STRETCH}"
            found += f" (most: {max(stretched, key=stretched.__getitem__)}, {max(stretched.values()):.2f})"
        findings.append(finding("note", "sizes-vary", "images", found))
    if 0 < spacings.total() < len(images):
        found = f"{len(images) - spacings.total()} of {len(images)} images state none"
        remedy = "write it into their files, or distances in pixels are averaged with distances in mm"
        findings.append(finding("warning", "spacing-missing", "images", found, remedy))
    if volumes and not spacings:
        found = "distances are given in voxels, as if slices lay as close as pixels"
        findings.append(finding("note", "no-spacing", "images", found))
    if len(spacings) > 1:
        found = f"{len(spacings)} spacings, from {_size(min(spacings))} to {_size(max(spacings))} mm"
        findings.append(finding("note", "spacing-varies", "images", f"{found}; distances are measured in mm per case"))
    return findings, facts


def _size(pair: Sequence[float]) -> str:
    return f"{pair[0]:g} x {pair[1]:g}"


def _leak(cases: Sequence[Case], inspections: Sequence[Inspection]) -> dict[str, Any] | None:
    told = [case.words("attributes").strip() for case in cases]
    usable = [
        (text, seen.targets, case.group)
        for case, text, seen in zip(cases, told, inspections, strict=True)
        if text and seen.targets is not None
    ]
    if not usable:
        return None
    texts, targets, groups = zip(*usable, strict=True)
    return leak_score(texts, np.stack(targets), groups)


def render_check(report: CheckReport) -> str:
    """The report as plain text for a terminal: findings by kind, facts, the leak score, and the counts."""
    facts = report.facts
    splits = ", ".join(f"{name} {count}" for name, count in facts.get("splits", {}).items())
    lines = [f"{facts['root']}: {facts['cases']} cases ({splits}), layout {facts['layout']}", ""]
    shown = [item for item in report.findings if item.code != "leak"]  # it has a section of its own
    if shown:
        lines += [render_findings(shown), ""]
    lines += ["FACTS", *_fact_lines(facts), ""]
    if report.leak is not None:
        loud = "WARNING: " if report.leak["leaks"] else ""
        lines += ["LEAK SCORE", *wrap(f"{loud}{report.leak['message']}", "  ", "  "), ""]
    notes = len(report.findings) - len(report.errors) - len(report.warnings)
    counts = [(len(report.errors), "error"), (len(report.warnings), "warning"), (notes, "note")]
    lines.append(", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts))
    return "\n".join(lines)


def _fact_lines(facts: dict[str, Any]) -> list[str]:
    rows = [
        ("images", _counted(facts.get("modes", {}))),
        ("sizes", _counted(facts.get("sizes", {}), of=facts.get("distinct_sizes", 0))),
    ]
    rows.append(("spacing", _counted(facts.get("spacings_mm", {}), " mm") or "not stated by the files"))
    for split, shares in facts.get("foreground_share", {}).items():
        told = ", ".join(f"{name} {share:.2%}" for name, share in list(shares.items())[:10])
        told += f" and {len(shares) - 10} more" if len(shares) > 10 else ""
        empty = facts["empty_masks"].get(split, 0)
        rows.append((f"masks, {split}", told + (f"; {empty} empty" if empty else "")))
    rows.append(("volumes", ", ".join(f"{split} {count}" for split, count in facts.get("volumes", {}).items())))
    rows.append(("groups", f"{facts['groups']}" + (f"; {facts['ungrouped']} without" if facts["ungrouped"] else "")))
    reports = facts["reports"]
    rows.append(("reports", f"{reports['cases']}, {reports['distinct']} distinct" if reports["cases"] else "none"))
    if tokens := reports.get("tokens"):
        told = "{shortest} to {longest}, median {median}, 95 % up to {percentile_95}; {kept} kept, {cut} cut"
        rows.append(("tokens", told.format(**tokens)))
    if coded := facts.get("attributes"):
        known = ", ".join(f"{name} {count}" for name, count in coded["known"].items())
        rows.append(
            ("attributes", f"{coded['cases']} of {coded['of']} cases say some, {coded['complete']} all; {known}")
        )
    rows.append(("licence", facts["licence"] or "not stated (`data.licence`)"))
    return [f"  {name:<13} {told}" for name, told in rows if told]


def _counted(counts: dict[str, int], unit: str = "", of: int = 0, most: int = 5) -> str:
    told = "; ".join(f"{name}{unit} ({count})" for name, count in list(counts.items())[:most])
    more = max(of, len(counts)) - most
    return told + (f"; {more} more" if more > 0 else "")
