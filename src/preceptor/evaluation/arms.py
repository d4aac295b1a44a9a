"""The arms of a run as readers see them: their order, their names, and the styles that tell them apart."""

from collections.abc import Iterable

TEACHER_STYLES = ("teacher", "teacher t2", "teacher t3", "teacher t4")
"""Classes of the style sheet, each a colour and a shape; a fifth teacher looks like the first."""


def is_teacher(arm: str) -> bool:
    """Whether an arm is the teacher (`teacher`) or one of several (`teacher-NAME`)."""
    return arm == "teacher" or arm.startswith("teacher-")


def teachers(arms: Iterable[str]) -> list[str]:
    """The teachers among arms, in their order."""
    return [arm for arm in arms if is_teacher(arm)]


def ordered(arms: Iterable[str]) -> list[str]:
    """Control, student, then the teachers: the order of tables and pictures."""
    known = list(arms)
    return [*(arm for arm in ("control", "student") if arm in known), *teachers(known)]


def gains(arms: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs that are compared, the question asked beforehand first: student, then each teacher, over control."""
    known = list(arms)
    if "control" not in known:
        return []
    return [(arm, "control") for arm in (*("student",) * ("student" in known), *teachers(known))]


def spoken(arm: str) -> str:
    """An arm within a sentence: `distilled student`, `control`, `teacher`, `teacher-NAME`."""
    return "distilled student" if arm == "student" else arm


def label(arm: str) -> str:
    """An arm as a heading: `Teacher NAME`."""
    told = spoken(arm).replace("-", " ", 1)
    return told[:1].upper() + told[1:]


def styles(arms: Iterable[str]) -> dict[str, str]:
    """The classes of the style sheet for each arm."""
    known = list(arms)
    found = {arm: arm for arm in known}
    taught = enumerate(teachers(known))
    return found | {arm: TEACHER_STYLES[index % len(TEACHER_STYLES)] for index, arm in taught}
