"""Arguments and options that several verbs share."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from preceptor.progress import Kind


def recipe_names(incomplete: str) -> list[str]:
    from preceptor.recipe import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def one_of(*words: str) -> "Callable[[str], list[str]]":
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def _layouts(incomplete: str) -> list[str]:
    from preceptor.data.layouts import LAYOUTS

    return [name for name in ("auto", *LAYOUTS) if name.startswith(incomplete)]


def _architectures(incomplete: str) -> list[str]:
    from preceptor.delivery.imports import ARCHITECTURES

    return [name for name in ARCHITECTURES if name.startswith(incomplete)]


Architecture = Annotated[
    str, typer.Option(help="A name of `preceptor list architectures`.", autocompletion=_architectures)
]
RecipeName = Annotated[
    str, typer.Argument(help="A recipe file, or the name of a shipped one.", autocompletion=recipe_names)
]
Source = Annotated[
    str,
    typer.Argument(help="A data folder, a recipe file, or the name of a shipped recipe.", autocompletion=recipe_names),
]
Layout = Annotated[
    str,
    typer.Option(
        help="auto, or a name of `preceptor list layouts`.",
        autocompletion=_layouts,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe field: --set training.lr=1e-3"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A class and its stored mask value, the background first."),
]
SPLITS = ("all", "train", "val", "test")
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]


def examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"    {line}" for line in lines)


def progress_kind(quiet: bool) -> "Kind":
    if quiet:
        return "silent"
    return "live" if sys.stderr.isatty() else "plain"
