"""Volumes as one case a slice, and the slices of a volume together again."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from preceptor.data.case import Case
from preceptor.data.readers import volume_slices
from preceptor.errors import DataError


def expand_volumes(cases: Iterable[Case]) -> Iterator[Case]:
    """One case a slice of each volume file, named `<case>-<slice>`, in the volume's group; other cases as they are.

    The volume is named as the case, and is its own group where the case has none.
    """
    for case in cases:
        try:
            count = volume_slices(case.image) if case.slice is None else None
        except DataError:  # a damaged file stays one case; whoever reads it tells what is wrong with it
            count = None
        if count is None:
            yield case
            continue
        volume = case.volume or case.name
        for at in range(count):
            yield replace(case, name=f"{case.name}-{at:03d}", slice=at, group=case.group or case.name, volume=volume)


def by_volume(cases: Iterable[Case]) -> dict[str, tuple[Case, ...]]:
    """Name to the slices of a volume, lowest first; a case without a volume is one under its own name.

    Slices of a volume file are ordered by their number, slices that are files of their own stay in the order given.
    """
    volumes: dict[str, list[Case]] = {}
    for case in cases:
        volumes.setdefault(case.volume or case.name, []).append(case)
    return {
        name: tuple(sorted(slices, key=lambda case: case.slice if case.slice is not None else -1))
        for name, slices in volumes.items()
    }
