"""Vectors of texts from models on this machine or behind an endpoint.

Models on this machine are refused where they would bring code of their own or pickles along, see
`intentbench.text.local_models`; nothing is downloaded.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from datamodules.errors import RequestError
from intentbench.text.answers import AnswerCache, request_key
from intentbench.text.asking import ask_all
from intentbench.text.endpoint import Endpoint
from intentbench.text.local_models import find_model
from intentbench.text.progress import follow

BATCH = 64
"""Texts in a request or a forward pass, at most."""

BATCH_CHARACTERS = 200_000
"""Of the texts in a request, at most: OpenAI's endpoint takes 300,000 tokens."""

TEXT_CHARACTERS = 16_000
"""Of a text that is sent, at most: OpenAI's endpoint takes 8,192 tokens."""

Vectors = NDArray[np.float32]


class SentenceEncoder:
    """A sentence-transformers model.

    Args:
        model: a folder, or a name on the hub of a model that has been downloaded before.
        revision: commit or tag, where `model` is a name.
        device: such as "cpu"; None takes what there is.

    Raises:
        RequestError: the extra `text` is not installed, the model is not on this machine, its
            weights are pickled, or it has code of its own.
    """

    def __init__(self, model: str, revision: str | None = None, device: str | None = None) -> None:
        library = _extra("sentence_transformers")
        folder, self.model, self.revision = find_model(model, revision)
        self.name = f"sentence-transformers:{self.model}"
        self._encoder = library.SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        self.parameters: dict[str, object] = {"max_tokens": self._encoder.max_seq_length}

    def embed(self, columns: Mapping[str, Sequence[str]]) -> dict[str, Vectors]:
        """See `intentbench.text.features.Embedder`."""

        def encode(texts: list[str]) -> Vectors:
            return np.asarray(
                self._encoder.encode(texts, batch_size=BATCH, show_progress_bar=False)
            )

        return _by_column(columns, encode)


class HiddenStateEncoder:
    """Pooled last hidden states of a transformers model.

    Args:
        model: as of `SentenceEncoder`.
        revision: as of `SentenceEncoder`.
        pooling: "mean" over the tokens, or the "last" one, as for models that read one way.
        max_tokens: longer texts are cut.
        device: such as "cpu" or "cuda".

    Raises:
        RequestError: as of `SentenceEncoder`.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Literal["mean", "last"] = "mean",
        max_tokens: int = 512,
        device: str | None = None,
    ) -> None:
        library = _extra("transformers")
        folder, self.model, self.revision = find_model(model, revision)
        self.name = f"transformers:{self.model}"
        self.parameters: dict[str, object] = {"pooling": pooling, "max_tokens": max_tokens}
        self._pooling, self._max_tokens = pooling, max_tokens
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        local = {"local_files_only": True, "trust_remote_code": False}
        self._tokeniser = library.AutoTokenizer.from_pretrained(str(folder), **local)
        if self._tokeniser.pad_token is None:
            self._tokeniser.pad_token = self._tokeniser.eos_token
        self._tokeniser.padding_side = "right"
        found = library.AutoModel.from_pretrained(str(folder), use_safetensors=True, **local)
        self._network = found.to(self._device).eval()

    def embed(self, columns: Mapping[str, Sequence[str]]) -> dict[str, Vectors]:
        """See `intentbench.text.features.Embedder`."""
        return _by_column(columns, self._encode)

    def _encode(self, texts: list[str]) -> Vectors:
        pooled = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                batch = self._tokeniser(
                    texts[start : start + BATCH],
                    padding=True,
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                ).to(self._device)
                states = self._network(**batch).last_hidden_state
                pooled.append(pool(states, batch["attention_mask"], self._pooling).float().cpu())
        return np.asarray(torch.cat(pooled).numpy())


def pool(
    states: torch.Tensor, mask: torch.Tensor, pooling: Literal["mean", "last"]
) -> torch.Tensor:
    """One vector a text.

    Args:
        states: (B, L, D).
        mask: (B, L), 1 at tokens and 0 at the padding after them.
        pooling: the "mean" of the tokens' states, or the "last" token's.
    """
    if pooling == "last":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    weights = mask[:, :, None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


class EndpointEncoder:
    """The embeddings of an OpenAI-compatible endpoint; each one is kept, and asked for once.

    Args:
        endpoint: to ask.
        answers: what has been answered before, and where answers go.
        model: of the endpoint.
        console: for progress.
        concurrency: requests in flight at most.
        max_characters: longer texts are cut.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        answers: AnswerCache,
        model: str,
        console: Console,
        concurrency: int = 8,
        max_characters: int = TEXT_CHARACTERS,
    ) -> None:
        self.name, self.model, self.revision = f"openai-compatible:{model}", model, ""
        self.parameters: dict[str, object] = {
            "max_characters": max_characters,
            "batch_characters": BATCH_CHARACTERS,
        }
        self._endpoint, self._answers, self._console = endpoint, answers, console
        self._concurrency, self._max_characters = concurrency, max_characters

    def embed(self, columns: Mapping[str, Sequence[str]]) -> dict[str, Vectors]:
        """See `intentbench.text.features.Embedder`.

        Raises:
            RequestError: some texts got no vector; the others' are kept.
        """
        batches = dict(enumerate(make_batches(self.missing(columns))))
        with follow(self._console, "embeddings, requests", len(batches)) as advance:
            failures = ask_all(self._endpoint, batches, self._ask, self._concurrency, advance)
        if failures:
            first = next(iter(failures.values()))
            kept = "the others are kept: " if len(failures) < len(batches) else ""
            raise RequestError(
                f"{len(failures)} of {len(batches)} requests for embeddings failed ({first}); "
                f"{kept}run again to send these alone"
            )
        return _by_column(columns, self._known)

    def missing(self, columns: Mapping[str, Sequence[str]]) -> list[str]:
        """The texts that would be sent: cut, each once, without those that are at hand.

        A kept vector that is damaged, or has not the length of most, is not.
        """
        wanted = dict.fromkeys(
            text[: self._max_characters] for texts in columns.values() for text in texts if text
        )
        lengths = {}
        for text in wanted:
            with suppress(ValueError):
                lengths[text] = len(self._vector(text))
        usual = [length for length, _ in Counter(lengths.values()).most_common(1)]
        return [text for text in wanted if lengths.get(text) not in usual]

    def _key(self, text: str) -> str:
        return request_key("embedding", {"model": self.model, "input": text})

    def _ask(self, texts: list[str]) -> None:
        vectors = self._endpoint.embeddings(
            {"model": self.model, "input": texts, "encoding_format": "float"}
        )
        for text, vector in zip(texts, vectors, strict=True):
            content = np.asarray(vector, dtype="<f4").tobytes()
            answer = base64.b64encode(content).decode()
            self._answers.add(self._key(text), self.model, answer, encoding="base64 float32")

    def _vector(self, text: str) -> Vectors:
        return decode_vector(self._answers.get(self._key(text)))

    def _known(self, texts: list[str]) -> Vectors:
        rows = [self._vector(text[: self._max_characters]) for text in texts]
        if len({len(row) for row in rows}) > 1:
            raise RequestError(
                f"{self.model}: vectors of several lengths came back; run again to ask for those "
                "of the rarer ones, or name another file with --answers"
            )
        return np.stack(rows).astype(np.float32)


def decode_vector(answer: object) -> Vectors:
    """The vector in a kept answer, by the rules for those that come from an endpoint.

    Raises:
        ValueError: it is no base64 of one or more finite float32.
    """
    if not isinstance(answer, str):
        raise ValueError("not a text")
    vector = np.frombuffer(base64.b64decode(answer, validate=True), dtype="<f4")
    if not vector.size or not np.isfinite(vector).all():
        raise ValueError("no finite numbers")
    return vector


def make_batches(texts: Sequence[str]) -> list[list[str]]:
    """Texts in order, at most `BATCH` and, unless it is one alone, `BATCH_CHARACTERS` together."""
    batches: list[list[str]] = []
    room = 0
    for text in texts:
        room -= len(text)
        if not batches or room < 0 or len(batches[-1]) == BATCH:
            batches.append([])
            room = BATCH_CHARACTERS - len(text)
        batches[-1].append(text)
    return batches


def _extra(module: str) -> Any:
    """A module of the extra `text`."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"this embedder needs {error.name}: pip install 'intentbench[text]'"
        ) from None


def _by_column(columns: Mapping[str, Sequence[str]], encode: Any) -> dict[str, Vectors]:
    """Encode what is not empty, each text once; a column of nothing but empty texts is zero."""
    places = {text: 0 for texts in columns.values() for text in texts if text}
    if not places:
        raise RequestError("all texts are empty: there is nothing to embed")
    places = {text: place for place, text in enumerate(places)}
    known = np.asarray(encode(list(places)), dtype=np.float32)
    if not known.size or not np.isfinite(known).all():
        raise RequestError("the model gives no vectors, or numbers in them that are not finite")
    found = {}
    for name, texts in columns.items():
        found[name] = np.zeros((len(texts), known.shape[1]), dtype=np.float32)
        used = [row for row, text in enumerate(texts) if text]
        found[name][used] = known[[places[texts[row]] for row in used]]
    return found
