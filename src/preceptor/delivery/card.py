"""The card of a package: what it is, what it was trained on, what it may be used for, and how well it did.

Card facts, all optional: name, description, arm, seed, source and licence of the data, cases (count by split),
intended_use, limits, encoder, validation (the best validation Dice), epochs, best_epoch, recipe (as a dictionary),
metrics (an arm of `summary.json`: from metric to {"mean", "low", "high"}), gain (an entry of its `gains`).
"""

from collections.abc import Mapping
from typing import Any

from preceptor.evaluation.metrics import METRIC_NAMES
from preceptor.learning.privilege import PRIVILEGES
from preceptor.segmentors.base import Condition

INTENDED_USE = "Research. Not a medical device; not for decisions about patients."
LIMITS = (
    "Figures hold for data like those it was judged on. Other scanners, patients, views or diseases can be far worse, "
    "and the network does not say so by itself: judge it on your own cases first (`preceptor evaluate`)."
)
UNKNOWN = "not stated"

_PARTS = ("student", "teacher", "distill", "training", "augment", "seeds")


def render_card(description: Mapping[str, Any]) -> str:
    """The card as Markdown. description: the content of `package.json`."""
    card, segmentor = description["card"], description["segmentor"]
    title = str(card.get("name") or segmentor["name"])
    parts = [
        f"# {title}",
        str(card.get("description") or "").strip(),
        _what_it_is(description),
        _training(card),
        f"## Intended use and limits\n\n{card.get('intended_use') or INTENDED_USE}\n\n{card.get('limits') or LIMITS}",
        _figures(card),
        _usage(description),
        _recipe(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_it_is(description: Mapping[str, Any]) -> str:
    segmentor, preprocessing = description["segmentor"], description["preprocessing"]
    condition = segmentor["condition"]
    shown = "the image alone"
    if condition:
        shown = f"the image and {Condition(**condition).described}"
    elif description["needs"] != "none":
        shown = f"the {PRIVILEGES[description['needs']].sees}"
    height, width = preprocessing["size"]
    colour = {1: "grey", 3: "colour"}.get(segmentor["in_channels"], f"{segmentor['in_channels']} channels")
    rows = [
        ("Network", f"`{segmentor['name']}`, size {segmentor['size']}"),
        ("Parameters", f"{description['weights']['parameters']:,}"),
        ("Needs", shown),
        ("Arm", description["card"].get("arm")),
        ("Input", f"{colour}, resized to {height} x {width} pixels; masks come back at the image's own size"),
        ("Normalisation", preprocessing.get("normalize")),
        ("Weights (SHA-256)", f"`{description['weights']['sha256']}`"),
        ("Written by", f"preceptor {description['preceptor']}, package format {description['version']}"),
    ]
    labels = [(name, _value(value)) for name, value in description["labels"].items()]
    return f"## What it is\n\n{_table(('', ''), rows)}\n\n{_table(('Class', 'Value in the masks it writes'), labels)}"


def _value(value: int | str | list[int]) -> str:
    """The stored value; of several, the first is written."""
    return str(value[0]) if isinstance(value, list) else str(value)


def _training(card: Mapping[str, Any]) -> str:
    cases = card.get("cases")
    if isinstance(cases, Mapping):
        cases = ", ".join(f"{count} {split}" for split, count in cases.items())
    epochs = card.get("epochs")
    if epochs is not None and card.get("best_epoch") is not None:
        epochs = f"{epochs}, the best was number {card['best_epoch']}"
    rows = [
        ("Data", card.get("source") or UNKNOWN),
        ("Licence of the data", card.get("licence") or UNKNOWN),
        ("Cases", cases),
        ("Report encoder", card.get("encoder")),
        ("Seed", card.get("seed")),
        ("Epochs", epochs),
    ]
    return f"## Trained on\n\n{_table(('', ''), rows)}"


def _figures(card: Mapping[str, Any]) -> str:
    metrics = card.get("metrics") or {}
    rows = [
        (label, f"{_number(entry.get('mean'))} [{_number(entry.get('low'))}, {_number(entry.get('high'))}]")
        for key, label in METRIC_NAMES.items()
        if isinstance(entry := metrics.get(key), Mapping)
    ]
    lines = ["## Measured"]
    if rows:
        lines.append("Mean over the judged cases, with its interval (see the run's report for policy and confidence).")
        lines.append(_table(("Metric", "Mean [interval]"), rows))
    if isinstance(gain := card.get("gain"), Mapping) and isinstance(dice := gain.get("dice"), Mapping):
        interval = f"{_number(dice.get('mean'))} [{_number(dice.get('low'))}, {_number(dice.get('high'))}]"
        p = dice.get("p")
        lines.append(f"Dice over the same network without a teacher: {interval}" + (f", p = {p:.3g}." if p else "."))
    if isinstance(best := card.get("validation"), int | float):
        lines.append(f"Validation Dice when it was chosen: {_number(best)}; optimistic, since the choice used it.")
    if len(lines) == 1:
        lines.append("Nothing has been measured yet: judge it before you use it.")
    return "\n\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "?"


def _usage(description: Mapping[str, Any]) -> str:
    if description["needs"] != "none":
        return (
            "## How to use it\n\nIt needs more than an image, so `preceptor predict` refuses it. "
            "It serves as a teacher: name this folder as `teacher.source` in a recipe."
        )
    return (
        "## How to use it\n\n"
        "```\npreceptor predict PACKAGE IMAGES -o MASKS\n```\n\n"
        "```python\n"
        "from preceptor.data.readers import read_image\n"
        "from preceptor.delivery.package import load_package\n"
        "from preceptor.delivery.predict import segment\n\n"
        'package = load_package("PACKAGE")\n'
        'probabilities = segment(package.network, package.preprocessing, read_image("image.png"))[0]\n'
        "```"
    )


def _recipe(card: Mapping[str, Any]) -> str:
    recipe = card.get("recipe")
    if not isinstance(recipe, Mapping):
        return ""
    rows = [(key, f"`{_short(recipe[key])}`") for key in _PARTS if recipe.get(key)]
    return f"## Recipe\n\n{_table(('Part', 'Settings'), rows)}" if rows else ""


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_short(item)}" for key, item in value.items() if item not in (None, {}, []))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return str(value)


def _table(head: tuple[str, str], rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows if value not in (None, "")]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """Text for one cell: no line ends, no bars, and no markup that a data set's name could smuggle in."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
