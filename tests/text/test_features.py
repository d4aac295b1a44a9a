"""Report features are computed once, kept safely, and read without any language model."""

import subprocess
import sys

import pytest
import torch

from preceptor.errors import DataError, StorageError, UntrustedFileError
from preceptor.storage import write_tensors
from preceptor.text.features import ReportFeatures, embed
from preceptor.text.hashed import HashedEncoder

TEXTS = [f"report {number}, left lung" for number in range(40)]


class Counting(HashedEncoder):
    """The hashed encoder, which remembers what it was asked."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        return super().encode(texts)


@pytest.fixture
def encoder():
    return Counting(8, 16)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "reports.safetensors"


def test_a_batch_holds_the_encoder_s_features(encoder, file):
    features = embed(TEXTS, encoder, file)
    assert (features.length, features.width, len(features), features.identity) == (8, 16, 40, encoder.identity)
    batch = ReportFeatures(file).batch([TEXTS[3], TEXTS[1], TEXTS[3]])
    assert batch.dtype == torch.float32
    assert torch.equal(batch, encoder.encode([TEXTS[3], TEXTS[1], TEXTS[3]]))
    assert torch.equal(features[TEXTS[0]], encoder.encode(TEXTS[:1])[0])
    assert features.batch([]).shape == (0, 8, 16)


def test_only_new_texts_are_encoded(encoder, file):
    embed([*TEXTS[:3], TEXTS[0], " " + TEXTS[1].replace(" ", "\n")], encoder, file)
    assert encoder.asked == TEXTS[:3]
    before = file.read_bytes()
    embed(TEXTS[:3], encoder, file)
    assert file.read_bytes() == before
    features = embed(TEXTS[:5], encoder, file)
    assert encoder.asked == TEXTS[:5]
    assert torch.equal(features.batch(TEXTS[:5]), HashedEncoder(8, 16).encode(TEXTS[:5]))


def test_progress_is_told(encoder, file):
    told: list[tuple[int, int]] = []
    embed(TEXTS, encoder, file, lambda done, total: told.append((done, total)))
    assert told == [(32, 40), (40, 40)]


def test_the_empty_report_has_features_too(encoder, file):
    assert embed([""], encoder, file).batch(["  "]).shape == (1, 8, 16)


def test_unknown_reports_are_listed(encoder, file):
    features = embed(TEXTS[:1], encoder, file)
    assert TEXTS[0] in features
    with pytest.raises(DataError, match=r"'never seen'(?s:.*)preceptor embed"):
        features.batch([TEXTS[0], "never seen", "never seen"])


def test_features_of_another_encoder_are_refused_and_kept(encoder, file):
    embed(TEXTS, encoder, file)
    before = file.read_bytes()
    with pytest.raises(DataError, match=r"another encoder(?s:.*)length-8(?s:.*)length-9"):
        embed(TEXTS, HashedEncoder(9, 16), file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_damaged_file_is_built_anew_and_said_so(encoder, file, share):
    embed(TEXTS, encoder, file)
    expected = ReportFeatures(file).batch(TEXTS)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StorageError):
        ReportFeatures(file)
    with pytest.warns(UserWarning, match="computed anew"):
        embed(TEXTS, encoder, file)
    assert torch.equal(ReportFeatures(file).batch(TEXTS), expected)


def test_a_file_of_something_else_is_never_overwritten(encoder, tmp_path):
    weights = tmp_path / "weights.safetensors"
    write_tensors(weights, {"weight": torch.zeros(3)})
    table = tmp_path / "reports.csv"
    table.write_text("case,report\n")
    pickled = tmp_path / "old.safetensors"
    torch.save({"weight": torch.zeros(3)}, pickled)
    for path, error in ((weights, DataError), (table, StorageError), (pickled, UntrustedFileError)):
        before = path.read_bytes()
        with pytest.raises(error):
            embed(TEXTS, encoder, path)
        assert path.read_bytes() == before


def test_no_text_at_all_is_refused(encoder, file):
    with pytest.raises(DataError, match="no text"):
        embed([], encoder, file)
    assert not file.exists()


def test_a_failed_encoder_leaves_the_old_file(encoder, file):
    embed(TEXTS[:1], encoder, file)
    before = file.read_bytes()
    encoder.encode = lambda texts: 1 / 0
    with pytest.raises(ZeroDivisionError):
        embed(TEXTS, encoder, file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_reading_needs_no_language_model(encoder, file):
    embed(TEXTS, encoder, file)
    code = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("transformers", "tokenizers", "huggingface_hub"):
            raise ImportError("refused: " + name)

sys.meta_path.insert(0, Refuse())
from preceptor.text.features import ReportFeatures

assert ReportFeatures({str(file)!r}).batch([{TEXTS[7]!r}]).shape == (1, 8, 16)
assert "preceptor.text.encoders" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
