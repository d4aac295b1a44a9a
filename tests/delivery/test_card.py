"""The card says what a reader must know, and says so too when it is not known."""

import pytest

from preceptor.delivery.card import INTENDED_USE, LIMITS, render_card


def description(**changes):
    content = {
        "version": 1,
        "preceptor": "0.1.0",
        "segmentor": {
            "name": "unguided",
            "size": "tiny",
            "options": {},
            "in_channels": 3,
            "classes": 3,
            "condition": None,
        },
        "preprocessing": {"size": [224, 192], "normalize": "zscore"},
        "labels": {"background": 0, "left": [1, 3], "right": "#00ff00"},
        "needs": "none",
        "weights": {"file": "weights.safetensors", "sha256": "ab" * 32, "parameters": 1234567},
        "card": {},
    }
    return {**content, **changes}


def test_bare_card_states_use_limits_and_what_is_missing():
    text = render_card(description())
    assert INTENDED_USE in text
    assert LIMITS in text
    assert "| Licence of the data | not stated |" in text
    assert "Nothing has been measured yet" in text
    assert "| Needs | the image alone |" in text


def test_full_card_states_every_fact():
    card = {
        "name": "demo",
        "description": "Finds things.",
        "arm": "student",
        "source": "Phantoms",
        "licence": "CC0",
        "cases": {"train": 10, "test": 4},
        "seed": 1,
        "epochs": 9,
        "best_epoch": 7,
        "validation": 0.75,
        "metrics": {"dice": {"mean": 0.8, "low": 0.7, "high": 0.9}, "hd95": {"mean": 3, "low": None, "high": 4}},
        "gain": {"dice": {"mean": 0.02, "low": 0.01, "high": 0.03, "p": 0.004}},
        "recipe": {"student": {"name": "unguided", "pretrained": None}, "seeds": [1]},
    }
    text = render_card(description(card=card))
    for line in (
        "# demo",
        "Finds things.",
        "| Parameters | 1,234,567 |",
        "resized to 224 x 192 pixels",
        "| left | 1 |",
        "| right | #00ff00 |",
        "| Cases | 10 train, 4 test |",
        "| Epochs | 9, the best was number 7 |",
        "| Dice | 0.8000 [0.7000, 0.9000] |",
        "| HD95 | 3.0000 [?, 4.0000] |",
        "without a teacher: 0.0200 [0.0100, 0.0300], p = 0.004.",
        "Validation Dice when it was chosen: 0.7500",
        "| student | `name: unguided` |",
        "preceptor predict PACKAGE IMAGES -o MASKS",
    ):
        assert line in text, line


def test_teacher_card_says_that_images_do_not_suffice():
    segmentor = {**description()["segmentor"], "condition": {"kind": "report", "length": 24, "width": 128}}
    text = render_card(description(segmentor=segmentor, needs="report"))
    assert "a report as token features [24, 128]" in text
    assert "`preceptor predict` refuses it" in text
    assert "preceptor predict PACKAGE" not in text


@pytest.mark.parametrize("evil", ["a | b", "<script>alert(1)</script>", "two\nlines"])
def test_facts_cannot_break_the_table(evil):
    text = render_card(description(card={"source": evil, "licence": "CC0"}))
    row = next(line for line in text.splitlines() if line.startswith("| Data |"))
    assert row.replace("\\|", "").count("|") == 3
    assert "<script" not in text


def test_every_line_of_the_card_fits_its_table():
    text = render_card(description(card={"name": "x", "licence": "y"}))
    assert "None" not in text
    assert text.endswith("```\n")
