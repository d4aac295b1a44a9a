"""Wrong reports, to see whether a report-guided network reads: a teacher that does not get worse with them does not.

Networks that are prompted by text may answer every prompt alike; distilling such a teacher transfers nothing of the
reports.
"""

from collections.abc import Sequence

import numpy as np

from preceptor.text.sides import mirror


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
