"""Encoders: the real libraries where they are installed, else stand-ins of the same form."""

import base64
import io
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from datamodules.errors import RequestError
from datamodules.texts import collect_texts
from intentbench.text.answers import AnswerCache
from intentbench.text.documents import offline_documents
from intentbench.text.encoders import (
    BATCH,
    BATCH_CHARACTERS,
    TEXT_CHARACTERS,
    EndpointEncoder,
    HiddenStateEncoder,
    SentenceEncoder,
    make_batches,
    pool,
)
from intentbench.text.endpoint import Endpoint
from intentbench.text.features import embed_documents
from tests.text.toys import Script, toy_dataset, toy_endpoint

COLUMNS = {"likes": ["a tent", "", "an oven"], "dislikes": ["", "an oven", ""]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "some-model"
    folder.mkdir()
    save_file({"weight": torch.eye(2)}, folder / "model.safetensors")
    return folder


def _length(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_sentence_transformers_is_called_without_foreign_code_or_pickles(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class Stand(SimpleNamespace):
        max_seq_length = 256

        def __init__(self, path: str, **options: Any) -> None:
            super().__init__()
            seen.update(options, path=path)

        def encode(self, texts: list[str], **_: Any) -> np.ndarray:
            seen["texts"] = texts
            return _length(texts)

    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Stand  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    encoder = SentenceEncoder(str(model))
    found = encoder.embed(COLUMNS)
    assert seen["texts"] == ["a tent", "an oven"]  # each once, none empty
    np.testing.assert_array_equal(found["likes"], [[6, 1], [0, 0], [7, 1]])
    np.testing.assert_array_equal(found["dislikes"], [[0, 0], [7, 1], [0, 0]])
    assert seen["trust_remote_code"] is False
    assert seen["local_files_only"] is True
    assert seen["model_kwargs"] == {"use_safetensors": True}
    assert encoder.name == "sentence-transformers:some-model"
    assert encoder.revision.startswith("sha256:")
    assert str(model) not in str(vars(encoder)["parameters"])


def test_hidden_states_are_pooled_over_tokens_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    class Batch(dict[str, torch.Tensor]):
        def to(self, _: str) -> "Batch":
            return self

    class Tokeniser:
        pad_token: str | None = None
        eos_token, padding_side = "<eos>", "left"

        @classmethod
        def from_pretrained(cls, _: str, **options: Any) -> "Tokeniser":
            seen.append(options)
            return cls()

        def __call__(self, texts: list[str], max_length: int, **_: Any) -> Batch:
            assert (self.pad_token, self.padding_side) == ("<eos>", "right")
            lengths = [min(len(text.split()), max_length) for text in texts]
            mask = torch.tensor([[n < k for n in range(max(lengths))] for k in lengths]).long()
            return Batch(input_ids=torch.arange(max(lengths)).expand_as(mask), attention_mask=mask)

    class Network(torch.nn.Module):
        @classmethod
        def from_pretrained(cls, _: str, **options: Any) -> "Network":
            seen.append(options)
            return cls()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            states = torch.stack([input_ids.float(), attention_mask.float()], -1)
            return SimpleNamespace(last_hidden_state=states)

    module = ModuleType("transformers")
    module.AutoTokenizer, module.AutoModel = Tokeniser, Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    columns = {"a": ["one two three", "one", "one two three four five"]}
    expected = np.array([[1, 1], [0, 1], [1.5, 1]])
    mean = HiddenStateEncoder(str(model), device="cpu", max_tokens=4).embed(columns)["a"]
    np.testing.assert_allclose(mean, expected)
    last = HiddenStateEncoder(str(model), pooling="last", device="cpu").embed(columns)["a"]
    np.testing.assert_allclose(last, [[2, 1], [0, 1], [4, 1]])
    assert all(o["local_files_only"] and not o["trust_remote_code"] for o in seen)
    assert seen[1]["use_safetensors"] is True


def test_a_real_transformer_pools_the_same_alone_as_in_a_batch(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tent", "oven", "warm"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(len(words), 16, 1, 2, 32)
    transformers.BertModel(config).save_pretrained(folder)
    encoder = HiddenStateEncoder(str(folder), device="cpu", max_tokens=16)
    both = encoder.embed({"a": ["tent", "warm oven warm oven"]})["a"]
    np.testing.assert_allclose(both[:1], encoder.embed({"a": ["tent"]})["a"], atol=1e-5)


def test_pooling_leaves_the_padding_out() -> None:
    states = torch.randn(3, 4, 5)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    for row, length in enumerate([2, 4, 1]):
        tokens = states[row, :length]
        assert torch.allclose(pool(states, mask, "mean")[row], tokens.mean(0), atol=1e-6)
        assert torch.equal(pool(states, mask, "last")[row], tokens[-1])


@pytest.mark.parametrize("encoder", [SentenceEncoder, HiddenStateEncoder])
def test_a_missing_extra_is_one_clear_line(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RequestError, match=r"pip install 'intentbench\[text\]'") as error:
        encoder("any/model")
    assert "\n" not in str(error.value)


def _encoder(script: Script, answers: Path, model: str = "m") -> tuple[Endpoint, EndpointEncoder]:
    endpoint = Endpoint(script.url, pause=0.001)
    console = Console(file=io.StringIO())
    return endpoint, EndpointEncoder(endpoint, AnswerCache(answers), model, console, 2, 50)


def test_an_endpoints_vectors_are_kept_and_asked_for_once(tmp_path: Path) -> None:
    texts = [f"text {'e' * (n % 7)} {n}" for n in range(2 * BATCH + 5)]
    columns = {"likes": [*texts, ""], "profile": ["x" * 60, *texts]}
    with toy_endpoint(Script()) as script:
        endpoint, encoder = _encoder(script, tmp_path / "a.jsonl")
        with endpoint:
            found = encoder.embed(columns)
        assert len(script.requests) == 3
        assert sum(len(body["input"]) for body in script.requests) == len(texts) + 1
        for text, vector in zip(texts, found["likes"], strict=False):
            np.testing.assert_array_equal(vector, [len(text), text.count("e"), 1])
        np.testing.assert_array_equal(found["profile"][0], [50, 0, 1])  # cut
        assert not found["likes"][-1].any()
        endpoint, encoder = _encoder(script, tmp_path / "a.jsonl")
        with endpoint:
            again = encoder.embed(columns)
        np.testing.assert_array_equal(again["profile"], found["profile"])
        assert len(script.requests) == 3
        endpoint, encoder = _encoder(script, tmp_path / "a.jsonl", "other")
        with endpoint:
            encoder.embed({"likes": ["text"]})
        assert len(script.requests) == 4


def _base64(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    "damaged",
    [
        *(None, 3, ["x"], "", "AAAA", "no base64", "é", _base64(6, 0, 1)[:-1]),
        *(_base64(6, 0), _base64(6, 0, 1, 0), _base64(6, np.nan, 1), _base64(6, np.inf, 1)),
    ],
)
def test_a_kept_vector_that_is_damaged_is_asked_for_again(tmp_path: Path, damaged: Any) -> None:
    columns = {"likes": ["a tent", "an oven", "a lens"]}
    answers = tmp_path / "a.jsonl"
    with toy_endpoint(Script()) as script:
        endpoint, encoder = _encoder(script, answers)
        with endpoint:
            expected = encoder.embed(columns)["likes"]
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
        lines[0]["answer"] = damaged
        answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
        endpoint, encoder = _encoder(script, answers)
        with endpoint:
            assert encoder.missing(columns) == ["a tent"]
            np.testing.assert_array_equal(encoder.embed(columns)["likes"], expected)
        assert script.requests[-1]["input"] == ["a tent"]
        assert _encoder(script, answers)[1].missing(columns) == []


def test_vectors_of_several_lengths_are_refused_and_the_rarer_asked_for_again(
    tmp_path: Path,
) -> None:
    answers = tmp_path / "a.jsonl"
    with toy_endpoint(Script()) as script:
        endpoint, encoder = _encoder(script, answers)
        with endpoint:
            encoder.embed({"likes": ["a tent"]})
        answers.write_text(answers.read_text().replace(_base64(6, 1, 1), _base64(6, 1)))
        columns = {"likes": ["a tent", "an oven", "a lens"]}
        endpoint, encoder = _encoder(script, answers)
        with endpoint, pytest.raises(RequestError, match="several lengths came back; run again"):
            encoder.embed(columns)
        assert _encoder(script, answers)[1].missing(columns) == ["a tent"]


def test_a_request_stays_below_the_limits_of_endpoints(tmp_path: Path) -> None:
    texts = ["x" * (TEXT_CHARACTERS - n % 3) + str(n) for n in range(30)] + ["short"] * 2 * BATCH
    batches = make_batches(texts)
    assert [text for batch in batches for text in batch] == texts
    assert all(len(batch) <= BATCH for batch in batches)
    assert all(sum(map(len, batch)) <= BATCH_CHARACTERS for batch in batches)
    for batch, after in itertools.pairwise(batches):  # closed no sooner than it has to be
        full = len(batch) == BATCH or sum(map(len, [*batch, after[0]])) > BATCH_CHARACTERS
        assert full
    assert make_batches(["x" * 3 * BATCH_CHARACTERS, "y"]) == [["x" * 3 * BATCH_CHARACTERS], ["y"]]
    assert make_batches([]) == []
    long = [f"{n} " + "e" * 2 * TEXT_CHARACTERS for n in range(20)]
    with toy_endpoint(Script()) as script, Endpoint(script.url) as endpoint:
        console = Console(file=io.StringIO())
        encoder = EndpointEncoder(endpoint, AnswerCache(tmp_path / "a.jsonl"), "m", console, 2)
        encoder.embed({"likes": long})
    sent = [body["input"] for body in script.requests]
    assert sorted(text for batch in sent for text in batch) == sorted(
        text[:TEXT_CHARACTERS] for text in long
    )
    assert all(sum(map(len, batch)) <= BATCH_CHARACTERS for batch in sent)
    assert encoder.parameters == {
        "max_characters": TEXT_CHARACTERS,
        "batch_characters": BATCH_CHARACTERS,
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    class Stand(SimpleNamespace):
        max_seq_length = 256

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        def encode(self, texts: list[str], **_: Any) -> np.ndarray:
            found = _length(texts)
            found[-1, 0] = value
            return found

    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Stand  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    with pytest.raises(RequestError, match="not finite"):
        SentenceEncoder(str(model)).embed(COLUMNS)


def test_vectors_that_cannot_be_had_stop_the_command(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(BATCH + 1)]
    with toy_endpoint(Script(lambda n, _: (400, {}) if n == 1 else None)) as script:
        endpoint, encoder = _encoder(script, tmp_path / "a.jsonl")
        words = r"1 of 2 requests for embeddings failed \(.*\); the others are kept: run again"
        with endpoint, pytest.raises(RequestError, match=words):
            encoder.embed({"likes": texts})
        endpoint, encoder = _encoder(script, tmp_path / "a.jsonl")
        with endpoint:
            assert encoder.embed({"likes": texts})["likes"].shape == (BATCH + 1, 3)
        assert len(script.requests) == 3
    with toy_endpoint(Script(lambda *_: (400, {}))) as script:
        endpoint, encoder = _encoder(script, tmp_path / "b.jsonl")
        with endpoint, pytest.raises(RequestError, match=r"2 of 2 .* failed \(.*\); run again"):
            encoder.embed({"likes": texts})


def test_one_intent_a_row_gives_one_part(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    documents = offline_documents(collect_texts(dataset), dataset.fingerprint)
    with toy_endpoint(Script()) as script:
        endpoint, encoder = _encoder(script, tmp_path / "a.jsonl")
        with endpoint:
            features = embed_documents(documents, encoder, "toy")
    assert features.user_intent.shape == (12, 6)  # likes, dislikes
    assert features.manifest.source == "openai-compatible:m"
    assert features.manifest.texts == "offline"
