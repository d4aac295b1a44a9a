"""The documentation tells the truth: commands parse, recipes are valid, names, keys, tests and links exist."""

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from preceptor import plainyaml
from preceptor.matrix import Matrix, cells
from preceptor.pretraining import parameter_count, shape_of
from preceptor.recipe import Recipe, merge, read_recipe, validate_recipe
from preceptor.recipe_diffusion import DiffusionRecipe
from preceptor.segmentors.diffusion import SHAPES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
}
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES)


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages, without their indent."""
    found = BLOCK.findall(PAGES[page])
    return [
        "\n".join(line.removeprefix(indent) for line in text.splitlines())
        for indent, language, text in found
        if language in languages
    ]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return BLOCK.sub("", PAGES[page])


def commands(page: str) -> Iterator[tuple[str, bool]]:
    """(command line, whether it stands alone in a block) of every `preceptor ...` on a page."""
    for text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("preceptor "):
                yield line, True
    for line in re.findall(r"`(preceptor [^`]+)`", prose(page).replace("\n", " ")):
        yield line, False


def recipe_keys(part: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a recipe with its field; sections that may be absent, and lists of sections, are keys as well."""
    for name, field in part.model_fields.items():
        inner = [kind for kind in _leaves(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if field.annotation not in inner:
            yield f"{prefix}{name}", field
        for kind in inner:
            each = {list: "[]", dict: ".NAME"}.get(get_origin(field.annotation), "")
            yield from recipe_keys(kind, f"{prefix}{name}{each}.")


def _leaves(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Literal or not get_args(kind):
        yield kind
        return
    for inner in get_args(kind):
        yield from _leaves(inner)


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    lines = [line for line in PAGES[page].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@each_page
def test_every_command_line_parses(page: str) -> None:
    from typer.main import get_command

    root: Any = get_command(importlib.import_module("preceptor.cli").app)
    for line, alone in commands(page):
        verb, *arguments = shlex.split(line)[1:]
        if verb.startswith("-"):
            continue
        assert verb in root.commands, f"{line}: no such verb"
        if not arguments and not alone:
            continue
        try:
            root.commands[verb].make_context(verb, arguments)
        except Exception as error:
            if alone or type(error).__name__ != "MissingParameter":
                raise AssertionError(f"{line}: {error}") from error


@each_page
def test_every_change_of_a_command_names_a_recipe_key(page: str) -> None:
    known = {key for key, _ in recipe_keys()}
    for line, _ in commands(page):
        for change in re.findall(r"--set ([\w.]+)=", line):
            key = re.sub(r"\.\d+\b", "[]", change).replace("teacher.training.", "training.")
            if line.startswith("preceptor pretrain-diffusion "):
                assert key in dict(recipe_keys(DiffusionRecipe)), f"{line}: {change} is no setting of a pre-training"
                continue
            key = re.sub(r"(?<=evaluate\.elsewhere\.)\w+", "NAME", key)
            if line.startswith("preceptor compare ") and key not in Matrix.model_fields:
                assert key.startswith("recipe."), f"{line}: {change} is no key of a matrix"
                key = key.removeprefix("recipe.")
            assert key in known or "options" in key, f"{line}: {change} is no key"


@each_page
def test_shipped_recipes_are_named_as_they_are_called(page: str) -> None:
    for line, _ in commands(page):
        for name in re.findall(r"(?<![\w/])(?:textfreekd|languide|zoo)/[\w/-]+", line):
            read_recipe(name)


@each_page
def test_every_recipe_in_a_block_is_valid(page: str) -> None:
    base = {
        "name": "base",
        "student": {"name": "unguided"},
        "teacher": {"segmentor": {"name": "guided"}},
    }
    for text in blocks(page, "yaml"):
        content = plainyaml.parse(text)
        if "distillers" in content:
            assert cells(Matrix.model_validate(content), Path("runs"))
            continue
        whole = "name" in content and "student" in content
        validate_recipe(content if whole else merge(base, content), where=page)


@each_page
def test_every_name_in_a_python_block_exists(page: str) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    assert hasattr(module, name.name), f"{page}: {node.module} has no {name.name}"


def test_the_reference_has_every_recipe_key_with_its_default_and_its_choices() -> None:
    told = {row[0].strip("`"): row for row in rows("docs/reference/recipe.md")}
    known = dict(recipe_keys())
    assert set(told) == set(known)
    for key, field in known.items():
        _, values, default, meaning = told[key]
        assert meaning, key
        if field.is_required():
            assert default == "required", key
        else:
            plain = field.get_default(call_default_factory=True)
            shown = plain if isinstance(plain, str) and plain else json.dumps(plain)
            assert default == f"`{shown}`", f"{key}: {default}, but the default is {shown}"
        choices = [word for kind in _leaves(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)]
        assert not choices or re.findall(r"`(.+?)`", values) == choices, f"{key}: {values}, but there are {choices}"


def test_the_settings_of_a_pretraining_are_told_with_their_defaults_and_choices() -> None:
    told = {row[0].strip("`"): row for row in rows("docs/how-to/diffusion.md")}
    known = dict(recipe_keys(DiffusionRecipe))
    assert [key for key in told if key not in SHAPES] == list(known)
    for key, field in known.items():
        plain = field.get_default(call_default_factory=True)
        if key == "data.split.validation":
            plain = DiffusionRecipe().data.split.validation
        shown = plain if isinstance(plain, str) and plain else json.dumps(plain)
        assert told[key][2] == f"`{shown}`", f"{key}: {told[key][2]}, but the default is {shown}"
        choices = [word for kind in _leaves(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)]
        assert not choices or re.findall(r"`(.+?)`", told[key][1]) == [str(word) for word in choices], key


def test_the_shapes_of_a_diffusion_unet_are_told_with_their_size() -> None:
    told = {row[0].strip("`"): row for row in rows("docs/how-to/diffusion.md")}
    for name, shape in SHAPES.items():
        own = shape_of(DiffusionRecipe(shape=name))
        side, widths = f"{shape.image_size} x {shape.image_size}", ", ".join(map(str, shape.widths))
        assert told[name][1:] == [side, widths, f"{parameter_count(own):,}"]


def test_the_keys_that_may_change_are_those_of_the_library() -> None:
    from preceptor.resuming import CHANGEABLE

    section = PAGES["docs/how-to/resume-and-stages.md"].partition("## What may change")[2].partition("```")[0]
    told = {name for name in re.findall(r"`([\w.]+)`", section) if "." in name or name in ("description", "seeds")}
    assert told == {key for key in CHANGEABLE if not key.endswith(".")}
    for key in CHANGEABLE:
        assert f"`{key.rstrip('.')}`" in section


def test_the_reference_of_commands_has_every_verb_and_option() -> None:
    from typer.main import get_command

    root: Any = get_command(importlib.import_module("preceptor.cli").app)
    page = PAGES["docs/reference/commands.md"]
    for verb, command in root.commands.items():
        section = page.partition(f"## `preceptor {verb}`")[2].partition("\n## ")[0]
        assert section, f"no section on {verb}: give `make docs`"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in section, f"{verb} {parameter.opts[0]}: give `make docs`"


def test_the_reference_has_every_metric_and_every_kind() -> None:
    from preceptor.evaluation.metrics import KINDS
    from preceptor.evaluation.scores import METRICS

    page = PAGES["docs/reference/metrics.md"]
    assert not [name for name in (*METRICS, *KINDS) if f"`{name}`" not in page]


def test_the_reference_has_every_finding_with_its_meaning() -> None:
    from preceptor.data.check_findings import TITLES

    told = {row[0].strip("`"): row[1] for row in rows("docs/reference/errors.md") if "-" in row[0]}
    assert told == {code: meaning for code, meaning in TITLES.items() if "-" in code}
    assert all(f"| `{code}` | {meaning} |" in PAGES["docs/reference/errors.md"] for code, meaning in TITLES.items())


def test_the_reference_has_every_key_of_a_summary_and_every_column_of_scores() -> None:
    import numpy as np
    import pandas as pd

    from preceptor.evaluation.metrics import case_metrics
    from preceptor.evaluation.summary import summarise

    mask = np.eye(8, dtype=bool)
    scores = [
        {"case": f"c{n}", "group": "", "seed": 0, "class": "x", **case_metrics(mask, np.roll(mask, n, 1))}
        for n in range(3)
    ]
    arms = {arm: pd.DataFrame(scores) for arm in ("teacher", "control", "student")}
    summary = summarise(arms, name="x")
    page = PAGES["docs/reference/run-folder.md"]
    told = {name for row in rows("docs/reference/run-folder.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert told == {*summary, "elsewhere"}  # which a run has that names other data
    gain = summary["gains"]["student_over_control"]["dice"]
    inner = {*scores[0], *gain, *summary["arms"]["student"]} - set(summary["arms"]["student"]["per_class"]["x"])
    missing = [name for name in inner if not re.search(rf"`(?:[\w]+\.)*{name}(?:\.[\w.]+)?`", page)]
    assert not missing


@each_page
def test_every_link_within_the_documentation_leads_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (here / name).resolve() if name else ROOT / page
        assert place.is_file(), f"{page}: {target}"
        if anchor:
            assert anchor in headings(place.relative_to(ROOT).as_posix()), f"{page}: {target}"


def headings(page: str) -> set[str]:
    """The anchors of a page, made as the site makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_every_page_is_in_the_table_of_contents() -> None:
    told = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert told == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


@each_page
def test_every_test_that_is_named_exists(page: str) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGES[page]):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{page}: {file}::{name}"


def test_every_fault_is_told_once() -> None:
    numbers = re.findall(r"^\| (\d+) \|", PAGES["docs/explanation/faults.md"], re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 26)]


@each_page
def test_no_page_names_a_folder_of_somebodys_machine(page: str) -> None:
    assert not re.findall(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|opt)/\S*", PAGES[page])
