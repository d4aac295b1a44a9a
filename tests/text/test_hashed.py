"""Hashed token vectors: the same everywhere, one for each word in its context."""

import hashlib
import math

import pytest
import torch

from preceptor.text.hashed import HashedEncoder, pieces, vector

TEXT = "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower right lung."


def token(encoder, text, word):
    return encoder.encode([text])[0, 1 + pieces(text).index(word)]


def test_features_are_the_same_on_every_machine():
    content = HashedEncoder(24, 128).encode([TEXT, ""]).numpy().astype("<f4").tobytes()
    assert hashlib.sha256(content).hexdigest() == "eb4105ea253fba1ce90dc77b8fad9c739fff93bb59b3c51cd5ca43718d120448"


def test_words_digits_and_signs_become_pieces():
    assert pieces("Left-sided  effusion,\n12 mm (RUL)") == [
        *("left", "-", "sided", "effusion", ",", "1", "2", "mm", "(", "rul", ")")
    ]
    assert pieces("Größe 右肺") == ["größe", "右", "肺"]
    assert pieces("") == []


def test_texts_are_padded_and_cut():
    encoder = HashedEncoder(6, 32)
    assert encoder.encode([TEXT, "", "left"]).shape == (3, 6, 32)
    assert encoder.count_tokens([TEXT, "", "left"]) == [len(pieces(TEXT)) + 2, 2, 3]
    cut = encoder.encode(["a b c d e f g"])
    assert torch.equal(cut, encoder.encode(["a b c d"]))
    assert encoder.encode([]).shape == (0, 6, 32)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_lengths_work(length):
    assert HashedEncoder(length, 8).encode([TEXT, ""]).shape == (2, length, 8)


def test_features_have_unit_variance_and_no_mean():
    features = HashedEncoder(24, 256).encode([TEXT])
    assert abs(features.mean()) < 0.05
    assert abs(features.var() - 1) < 0.1


def test_different_words_are_nearly_orthogonal():
    left, right = vector("word left", 512), vector("word right", 512)
    assert abs(left @ right) / 512 < 4 / math.sqrt(512)


def test_context_tells_equal_words_apart():
    encoder = HashedEncoder(24, 128)
    one, two = token(encoder, "upper left lung", "left"), token(encoder, "lower left lung", "left")
    assert not torch.allclose(one, two)
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.4  # yet it stays the same word


def test_order_matters():
    encoder = HashedEncoder(24, 128)
    one = encoder.encode(["upper left lung and lower right lung"])[0].sum(0)
    two = encoder.encode(["upper right lung and lower left lung"])[0].sum(0)
    assert (one - two).norm() > 0.1 * one.norm()


def test_a_side_is_known_three_words_away():
    encoder = HashedEncoder(24, 128)
    one, two = (token(encoder, f"upper middle lower {side} lung", "upper") for side in ("left", "right"))
    assert not torch.allclose(one, two)


def test_case_and_white_space_do_not_matter():
    encoder = HashedEncoder()
    assert torch.equal(encoder.encode(["LEFT  lung\n"]), encoder.encode(["left lung"]))


def test_identity_names_all_that_matters():
    assert HashedEncoder(24, 128).identity == "hashed/1/length-24/width-128"
