"""Errors that a user can cause. Each says what is wrong, where, what was found and expected, and what to do.

The command line prints them without a traceback and exits with code 2; anything else that is raised is a defect of
the library and keeps its traceback.
"""

from collections.abc import Sequence
from typing import Any

LISTED = 20


class Interrupted(Exception):
    """The run was asked to stop (SIGTERM), has saved its state and can go on."""


class UserError(Exception):
    """Something that the user can mend.

    what: one sentence without a final stop. where: the file, case or recipe key. found, expected: values.
    remedy: what to do. offenders: every item at fault; the first 20 are listed and the others counted.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        remedy: str = "",
        offenders: Sequence[object] = (),
    ) -> None:
        self.what, self.where, self.found, self.expected = what, where, found, expected
        self.remedy, self.offenders = remedy, tuple(offenders)
        lines = [f"{where}: {what}" if where is not None else what]
        if found is not None:
            lines.append(f"  found:    {found}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        lines += [f"  - {item}" for item in self.offenders[:LISTED]]
        if len(self.offenders) > LISTED:
            lines.append(f"  ... and {len(self.offenders) - LISTED} more")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple:
        """Survives the way from a worker process to its parent."""
        fields = (self.what, self.where, self.found, self.expected, self.remedy, self.offenders)
        return _rebuild, (type(self), *fields)


def _rebuild(kind: type[UserError], what: str, *fields: Any) -> UserError:
    where, found, expected, remedy, offenders = fields
    return kind(what, where=where, found=found, expected=expected, remedy=remedy, offenders=offenders)


class DataError(UserError):
    """A file, case or data set that cannot be used as it is."""


class RecipeError(UserError):
    """A recipe that is misspelt, incomplete or contradictory."""


class StorageError(UserError):
    """A file that could not be written, is damaged, or is not what its name says."""


class UntrustedFileError(StorageError):
    """A file refused before its content is used, since it could harm: pickles, links, bombs, odd paths."""


class TrainingError(UserError):
    """A training that cannot go on: losses that are not finite, a changed recipe, a dead worker."""
