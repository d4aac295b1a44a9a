"""The faults of a recipe in a user's words: one line a key, with the nearest valid key where one is misspelt."""

import difflib
import re
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

_UNION = re.compile(r"^(int|str|float|bool|constrained-\w+|(list|dict)\[.*\])$")
"""What pydantic adds to a fault's place to say which type of several it tried."""


@dataclass(frozen=True)
class FieldsOf:
    """Annotation of a dictionary that holds some of a part's fields: `Annotated[dict[str, Any], FieldsOf(Part)]`."""

    part: type[BaseModel]


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Every fault of `error`, one line a key; where several types would do, their messages share the line.

    root: the model that was validated; its fields give the nearest valid keys.
    """
    lines: dict[str, list[str]] = {}
    found: dict[str, object] = {}
    for item in error.errors():
        location = [str(part) for part in item["loc"] if not _UNION.match(str(part))]
        key = ".".join(location) or "recipe"
        if item["type"] == "extra_forbidden":
            message = f"unknown key; {_hint(location, root)}"
        elif item["type"] == "missing":
            message = "required, but missing"
        elif location[-1:] == ["[key]"] or item["type"] == "invalid_key":
            key = ".".join(location[:-2]) or "recipe"
            message = f"the key {item['input']!r} is no text; put it in quotes"
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] != "value_error":
                found[key] = item["input"]
        lines.setdefault(key, []).append(message)
    return [
        f"{key}: {' or '.join(messages)}" + (f"; found {found[key]!r}" if key in found else "")
        for key, messages in lines.items()
    ]


def _hint(location: list[str], root: type[BaseModel]) -> str:
    valid = _keys_at(location[:-1], root)
    near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(valid)}"


def _keys_at(location: list[str], root: type[BaseModel]) -> list[str]:
    part = root
    for name in location:
        if name in part.model_fields:
            field = part.model_fields[name]
            # A field may be a part, an optional part, a list of parts, or a dictionary annotated with one.
            marks = [mark.part for mark in field.metadata if isinstance(mark, FieldsOf)]
            options = [field.annotation, *getattr(field.annotation, "__args__", ()), *marks]
            part = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), part)
    return list(part.model_fields)
