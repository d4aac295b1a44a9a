"""What lets the same command go on, and what forbids it: one process a folder, the same recipe, the same data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preceptor.data.case import Case
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.recipe import Recipe, read_recipe
from preceptor.storage import hash_file, hash_json, read_json, write_json

CHANGEABLE = (
    "description",
    "data.licence",
    "data.source",
    "data.root",
    "reports.features",
    "reports.attributes",
    "training.epochs",
    "teacher.training.epochs",
    "teachers.NAME.training.epochs",
    "training.workers",
    "training.accelerator",
    "training.strategy",
    "training.checkpoint_minutes",
    "teacher.source",
    "teachers.NAME.source",
    "control.source",
    "cache.",
    "evaluate.",
    "seeds",
)
"""Recipe keys that may differ when a run is resumed: they do not change what finished stages have learned.

`data.root` and tables may move since the content of the cases is checked; more seeds may be added. Devices and nodes
stay: their number multiplies the batch, in which the student must not differ from its control. NAME stands for any one
name, and a key that ends with a stop for all below it.
"""


def is_among(line: str, keys: Iterable[str]) -> bool:
    """Whether a line of `differences` is of one of these keys, written as those of CHANGEABLE are."""
    found = line.partition(": ")[0].split(".")
    return any(_fits(found, key) for key in keys)


def _fits(found: Sequence[str], key: str) -> bool:
    wanted = key.rstrip(".").split(".")
    whole = len(found) == len(wanted) or (key.endswith(".") and len(found) > len(wanted))
    return whole and all(part in ("NAME", name) for name, part in zip(found, wanted, strict=False))


def require_same_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse a folder whose recipe differs in what was learned from it (fault 16).

    Before any arm has begun nothing was learned, and a changed recipe checks its data anew, and other data against it.
    """
    path, begun = folder / "recipe.yaml", any(folder.glob("*/seed-*"))
    changed = differences(read_recipe(path).plain(), recipe.plain()) if path.exists() else []
    refused = [line for line in changed if not is_among(line, CHANGEABLE)]
    if not begun and (refused or not path.exists()):
        for checked in (folder / "data.json", *folder.glob("elsewhere/*/data.json")):
            checked.unlink(missing_ok=True)
    elif refused:
        raise RecipeError(
            "the run in this folder was made with another recipe",
            where=folder,
            offenders=refused,
            remedy="undo the change, or name another folder with --out",
        )


def require_same_data(before: dict[str, str], now: dict[str, str], root: Path) -> None:
    """Refuse cases whose files, report, split or group changed since the run began (fault 16)."""
    changed = differences(before, now)
    if changed:
        raise DataError(
            "the data set changed since this run began",
            where=root,
            offenders=changed,
            remedy="restore the data, or name another folder with --out",
        )


def require_same_encoder(before: str | None, now: str | None, features: object) -> None:
    """Refuse a file of report features that another encoder made than the run began with (None: not known)."""
    if before and now and before != now:
        raise RecipeError(
            "the report features are those of another encoder than this run began with",
            where=features,
            found=now,
            expected=before,
            remedy="name a file of that encoder, or another folder with --out",
        )


def require_same_teachers(folder: Path, weights: Mapping[str, str]) -> None:
    """Write which teachers the student in `folder` learns from, or refuse others. weights: file hash by arm."""
    path = folder / "taught.json"
    if not path.exists():
        write_json(path, dict(weights))
        return
    known = read_json(path)
    for arm, found in weights.items():
        if known.get(arm) != found:
            raise StorageError(
                f"the student learned from another {arm} than the run has now",
                where=folder,
                found=f"weights {found[:16]}...",
                expected=f"weights {str(known.get(arm))[:16]}...",
                remedy="bring the teacher back, or delete this folder to train the student anew",
            )


def fingerprints(cases: Sequence[Case]) -> dict[str, str]:
    """For each case a hash of its files, slice, split, group, report, and attributes where a table gives them."""
    files: dict[Path, str] = {}
    result = {}
    for case in cases:
        for path in (case.image, case.mask):
            if path is not None and path not in files:
                files[path] = hash_file(path)
        mask = files[case.mask] if case.mask else None
        content = [files[case.image], mask, case.slice, case.split, case.group, case.report]
        coded = [] if case.attributes is None else [case.attributes]
        result[case.name] = hash_json(content + coded)[:16]
    return result


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Lines `key: before -> after` for each leaf in which two nested values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for name in dict.fromkeys([*before, *after]):
            inner = f"{key}.{name}" if key else str(name)
            lines += differences(before.get(name, "(absent)"), after.get(name, "(absent)"), inner)
        return lines
    return [] if before == after else [f"{key}: {before} -> {after}"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in a run folder; the lock is gone with its process, however that ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StorageError(
            "another process is working in this run folder", where=folder, remedy="wait for it, or use --out"
        ) from error
    except OSError as error:
        raise StorageError(
            "the run folder cannot be made or written", where=folder, found=error.strerror, remedy="use another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
