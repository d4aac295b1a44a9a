"""Judging an arm: case by case, at the original resolution, by the very code that predicts for a user.

A report-guided arm is also probed: with empty reports, with the reports of other cases, and with the sides swapped.
A teacher that does not get worse does not read, and says so in the report.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.case import Case
from preceptor.data.masks import decode_mask
from preceptor.data.readers import read_image, read_mask
from preceptor.delivery.package import Package
from preceptor.delivery.predict import segment
from preceptor.errors import UserError
from preceptor.evaluation.metrics import CASE_METRICS, case_metrics
from preceptor.recipe import DataRecipe, Recipe, SegmentorRecipe
from preceptor.storage import replacing, write_text
from preceptor.text.features import ReportFeatures
from preceptor.text.sides import mirror

Row = dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """How predictions are compared: the recipe's labels, mask rule and tolerance."""

    recipe: Recipe

    def rows(
        self,
        package: Package,
        cases: Sequence[Case],
        seed: int,
        features: ReportFeatures | None = None,
        reports: Sequence[str] | None = None,
        predictions: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Row]:
        """A row for each case and foreground class.

        reports: what a report-guided package is shown, one for each case. predictions: folder for PNGs of
        class indices.
        """
        names = list(self.recipe.data.labels)
        rows: list[Row] = []
        for index, case in enumerate(cases):
            picture = read_image(case.image, case.slice)
            condition = None
            if package.needs == "report":
                assert features is not None
                assert reports is not None
                condition = features.batch([reports[index]])
            (probability,) = segment(package.network, package.preprocessing, [picture], condition)
            predicted = probability.argmax(0).astype(np.uint8)
            if predictions is not None:
                write_prediction(predictions / f"{case.name}.png", predicted)
            assert case.mask is not None
            stored = read_mask(case.mask, case.slice).pixels
            reference = decode_mask(stored, self.recipe.data.labels, self.recipe.data.mask_rule, case.mask)
            for number, name in enumerate(names[1:], start=1):
                scores = case_metrics(
                    predicted == number,
                    reference == number,
                    spacing=picture.geometry.spacing,
                    tolerance=self.recipe.evaluate.tolerance,
                )
                rows.append({"case": case.name, "group": case.group or "", "seed": seed, "class": name, **scores})
            if progress is not None:
                progress(index + 1, len(cases))
        return rows


def evaluate_package(
    package: Package,
    data: DataRecipe,
    cases: Sequence[Case],
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float, float, float]]:
    """Judge a report-free package on labelled cases; writes `cases.csv` and predictions into `out`.

    Returns mean, low and high of each metric over cases and classes. Raises UserError where the package needs reports
    or the labels name other classes than the package's.
    """
    import pandas as pd

    from preceptor.evaluation.statistics import interval

    names = list(package.labels)
    if package.needs != "none":
        raise UserError("this package needs reports; only image-only packages are judged here", found=package.needs)
    if list(data.labels) != names:
        raise UserError(
            "the labels are not the package's classes",
            found=", ".join(data.labels) or "none",
            expected=", ".join(f"--label {name}={value}" for name, value in package.labels.items()),
            remedy="name each class with the value that it has in these masks",
        )
    recipe = Recipe(name="evaluate", data=data, student=SegmentorRecipe(name=package.segmentor["name"]))
    rows = Judge(recipe).rows(package, cases, 0, predictions=out / "predictions", progress=progress)
    frame = pd.DataFrame(rows)
    write_text(out / "cases.csv", frame.to_csv(index=False))
    groups = frame.groupby("case", sort=False)
    unit = [group if group else case for case, group in groups["group"].first().items()]
    return {name: interval(groups[name].mean().to_numpy(), unit) for name in CASE_METRICS}


def write_prediction(path: Path, classes: np.ndarray) -> None:
    """Write class indices [H, W] as an 8-bit PNG."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(classes).save(temporary, format="PNG")


def wrong_reports(reports: Sequence[str], seed: int) -> dict[str, list[str]]:
    """The probes: from probe name to the reports shown instead of the right ones.

    shuffled: a seeded permutation in which, where possible, no case keeps a report with its own wording.
    """
    return {
        "empty": [""] * len(reports),
        "shuffled": shuffled(reports, seed),
        "wrong_side": [mirror(text, horizontal=True, vertical=False) for text in reports],
    }


def shuffled(reports: Sequence[str], seed: int) -> list[str]:
    """The reports dealt anew so that as few as possible keep their own wording.

    Sorted by wording and rotated by the size of the largest group of equal ones; groups and order are drawn by seed.
    """
    generator = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for index in generator.permutation(len(reports)):
        groups.setdefault(reports[index], []).append(int(index))
    order = [index for group in groups.values() for index in group]
    if not order:
        return []
    step = max(len(group) for group in groups.values())
    dealt = list(reports)
    for place, index in enumerate(order):
        dealt[index] = reports[order[(place + step) % len(order)]]
    return dealt
