"""What a free note says outright is coded; everything else stays unknown. All notes here are invented."""

import pytest

from preceptor.text.attributes import ATTRIBUTES, THIRDS, parse_attributes
from preceptor.text.notes import parse_note
from preceptor.text.sides import can_mirror, mirror

CLEAR = dict.fromkeys(ATTRIBUTES, 0)
LEFT, RIGHT = (dict.fromkeys((side + third for third in THIRDS), 1) for side in "lr")
LEFT_CLEAR = {"bilateral": 0, **dict.fromkeys(LEFT, 0)}

SAID = {
    # both sides
    "Bilateral opacities.": {"bilateral": 1},
    "BILATERAL GROUND-GLASS OPACITIES": {"bilateral": 1},
    "Patchy consolidation bilaterally.": {"bilateral": 1},
    "Ground glass involving both lungs": {"bilateral": 1},
    "Infiltrates are seen in the right and left lungs.": {"bilateral": 1},
    "Bilateral and peripheral consolidations, more prominent in the right lung.": {"bilateral": 1},
    # thirds
    "Right upper lobe consolidation.": {"rupper": 1},
    "Consolidation in the right upper lobe": {"rupper": 1},
    "RUL consolidation; LLL opacity.": {"bilateral": 1, "llower": 1, "rupper": 1},
    "Opacity in the lower zone of the left lung.": {"llower": 1},
    "Left basal air-space opacity.": {"llower": 1},
    "Hazy opacities at the right apex.": {"rupper": 1},
    "Consolidation in the right upper and lower lung zones.": {"rupper": 1, "rlower": 1},
    "Opacification of the left upper to lower zones.": LEFT,
    "Left mid-to-lower zone infiltrate.": {"lmiddle": 1, "llower": 1},
    "Right middle and lower lobe pneumonia.": {"rmiddle": 1, "rlower": 1},
    "Consolidations in both lower lobes.": {"bilateral": 1, "llower": 1, "rlower": 1},
    "Bibasal infiltrates.": {"bilateral": 1, "llower": 1, "rlower": 1},
    "Opacities in the upper zones bilaterally.": {"bilateral": 1, "lupper": 1, "rupper": 1},
    "Diffuse bilateral opacities with a mid zone predominance.": {"bilateral": 1, "lmiddle": 1, "rmiddle": 1},
    "Left lower lobe consolidation and patchy right upper zone opacity.": {"bilateral": 1, "llower": 1, "rupper": 1},
    "Consolidation throughout the left lung.": LEFT,
    "The entire right lung shows opacification.": RIGHT,
    "Opacities in all lung zones.": {"bilateral": 1, **LEFT, **RIGHT},
    # exceptions
    "Consolidations in both lungs, except for the left upper zone.": {"bilateral": 1, "lupper": 0},
    "Bilateral opacities sparing the apices.": {"bilateral": 1, "lupper": 0, "rupper": 0},
    # one
    "A single nodular opacity (arrow) in the left lower zone.": {"bilateral": 0, "number": 1, "llower": 1},
    "Unilateral infiltrates.": {"bilateral": 0},
    "Two patchy consolidations in the right lung.": {"number": 2},
    # clear lungs
    "Lungs clear.": CLEAR,
    "Heart of normal size. The lungs are clear.": CLEAR,
    "Both lungs are clear, no effusion.": CLEAR,
    "Clear lungs.": CLEAR,
    "No pulmonary infection.": CLEAR,
    "No thoracic abnormality": CLEAR,
    "Left lung is clear.": LEFT_CLEAR,
    "Right lower lobe consolidation. Left lung is normal.": {**LEFT_CLEAR, "rlower": 1},
    "The left upper zone is clear.": {"lupper": 0},
    # places belong to their own words
    "Left pleural effusion with left mid zone opacity.": {"lmiddle": 1},
    "Left basal opacity and a small right pleural effusion.": {"llower": 1},
    "Left upper lobe consolidation with obscuration of the right hemidiaphragm.": {"lupper": 1},
    "No effusion, but left basal consolidation.": {"llower": 1},
    "Although there is no nodule, there is ground glass in both lungs.": {"bilateral": 1},
    "Bilateral opacities as seen on the CT.": {"bilateral": 1},
    "The CT was not helpful. The radiograph shows left basal opacity.": {"llower": 1},
}  # fmt: skip

UNSAID = [
    "",
    "Nuclei are evenly distributed.",
    "COVID-19 pneumonia.",
    "Fever for 2 pneumonia admissions.",
    "Opacity.",
    "Multifocal patchy opacities.",
    "Peripheral consolidation along the left costal margin.",
    "Perihilar mid and upper zone opacification.",
    "Cavitating right upper lobe mass.",
    "Calcified granulomas in the left upper zone.",
    "Left lower lobe atelectasis and consolidation.",
    "Bilateral pleural effusions and consolidation.",
    "Consolidation and right upper lobe collapse.",
    # denied, doubted, gone, or elsewhere
    "No consolidation.",
    "No focal consolidation in the left lower lobe.",
    "No effusion, consolidation or opacity in the right lower lobe.",
    "Consolidation in the right lower lobe is not seen.",
    "No clear consolidation. Lungs of normal volume.",
    "Possible left lower lobe consolidation.",
    "Left lower lobe consolidation?",
    "Right basal opacity may represent pneumonia.",
    "The left basal opacity has resolved.",
    "Bilateral infiltrates cleared within two weeks.",
    "History of right upper lobe pneumonia.",
    "CT shows bilateral ground-glass opacities. Left lung is clear.",
    "The remaining lungs are clear.",
    "The lungs are otherwise clear.",
    "Lungs are not clear.",
    "The lungs are clear. Right basal opacity.",
]


@pytest.mark.parametrize("note", SAID)
def test_what_a_note_says_is_coded(note: str) -> None:
    assert parse_note(note) == SAID[note]


@pytest.mark.parametrize("note", UNSAID)
def test_what_a_note_does_not_say_stays_unknown(note: str) -> None:
    found = parse_note(note) or {}
    assert not found, f"{note!r} says nothing, but {found} was coded"


def test_facts_that_contradict_each_other_are_unknown() -> None:
    assert parse_note("Right basal opacity. The right lung is clear.") is None
    note = "Left lower lobe consolidation. The left lower zone is clear. Right apical opacity."
    assert parse_note(note) == {"rupper": 1}


def test_a_sentence_of_the_published_form_is_read_as_such() -> None:
    text = "Bilateral pulmonary infection, two infected areas, upper left lung and all right lung."
    assert parse_note(text) == parse_attributes(text)


@pytest.mark.parametrize("note", SAID)
def test_the_note_of_a_mirrored_image_says_the_mirrored_facts(note: str) -> None:
    """Training rewrites the note of a flipped image, and reads the facts from what it has become."""
    across = {**{f"l{t}": f"r{t}" for t in THIRDS}, **{f"r{t}": f"l{t}" for t in THIRDS}}
    down = {f"{s}{a}": f"{s}{b}" for s in "lr" for a, b in (("upper", "lower"), ("lower", "upper"))}
    for horizontal, names in ((True, across), (False, down)):
        if can_mirror(note, horizontal, not horizontal):
            wanted = {names.get(name, name): value for name, value in SAID[note].items()}
            assert parse_note(mirror(note, horizontal, not horizontal)) == wanted
