"""`intentbench text summarise` and `intentbench text embed`."""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from datamodules.catalog import catalog
from datamodules.console import plain_console
from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.raw_texts import read_raw_texts
from datamodules.texts import TextData, collect_texts
from intentbench.text.answers import AnswerCache
from intentbench.text.arguments import check_options
from intentbench.text.documents import DocumentSet, offline_documents, read_documents
from intentbench.text.encoders import (
    EndpointEncoder,
    HiddenStateEncoder,
    SentenceEncoder,
)
from intentbench.text.endpoint import Endpoint, Usage
from intentbench.text.features import (
    Embedder,
    TextFeatures,
    check_features,
    embed_documents,
    stack_columns,
)
from intentbench.text.parameters import check_parameters
from intentbench.text.precomputed import read_precomputed
from intentbench.text.store import MANIFEST
from intentbench.text.summaries import (
    CHARACTERS_A_TOKEN,
    Settings,
    SummariesError,
    Summariser,
)
from intentbench.text.tfidf import TfidfSvd

OPENAI = "https://api.openai.com/v1"
ANSWERS = "answers.jsonl"
SENT_NOTHING = "nothing was sent"


def run_text(options: argparse.Namespace, console: Console) -> int:
    """Make texts, or vectors of texts.

    Returns:
        0; 1 where an endpoint gave no answer for some rows.

    Raises:
        RequestError: an option or a file is wrong.
    """
    check_options(options)
    folder = Path(options.dataset)
    is_prepared = options.dataset not in catalog() and folder.is_dir()
    dataset = load_prepared(folder if is_prepared else prepare(options.dataset, options.data_root))
    out = options.out or Path("text") / dataset.meta.name
    if options.action == "summarise":
        return _summarise(options, dataset, out, console)
    return _embed(options, dataset, out, console)


def _summarise(
    options: argparse.Namespace, dataset: PreparedDataset, out: Path, console: Console
) -> int:
    if options.model is None:
        documents = offline_documents(_collect(options, dataset), dataset.fingerprint)
    else:
        with _endpoint(options) as endpoint:  # first: it refuses an address that is none
            try:
                written = _write_by_model(options, dataset, out, console, endpoint)
            except SummariesError as error:
                plain_console(stderr=True).print(f"intentbench: {error}")
                return 1
        if written is None:
            return 0
        documents = written
    path = documents.write(out)
    _say_documents(console, documents)
    console.print(f"wrote {path}")
    return 0


def _write_by_model(
    options: argparse.Namespace,
    dataset: PreparedDataset,
    out: Path,
    console: Console,
    endpoint: Endpoint,
) -> DocumentSet | None:
    """The texts; None after a dry run."""
    answers = AnswerCache(options.answers or out / ANSWERS)
    summariser = Summariser(_collect(options, dataset), _settings(options), answers)
    plans = summariser.plan()
    for plan in plans:
        console.print(str(plan))
    tokens_in, tokens_out = (
        sum(getattr(plan, name) for plan in plans) for name in ("tokens_in", "tokens_out")
    )
    _say_cost(console, "at most about", tokens_in, tokens_out, options)
    if options.dry_run:
        console.print(SENT_NOTHING)
        return None
    if any(plan.at_hand < plan.rows for plan in plans):
        answers.check_writable()
    _say_in_clear(endpoint)
    try:
        return summariser.summarise(
            endpoint,
            console,
            options.concurrency,
            dataset.fingerprint,
            fall_back=options.fall_back,
        )
    finally:
        _say_usage(console, endpoint.usage, options)


def _embed(
    options: argparse.Namespace, dataset: PreparedDataset, out: Path, console: Console
) -> int:
    if options.embedder == "precomputed":
        if options.vectors is None:
            raise RequestError("--embedder precomputed needs --vectors: the folder of .npy files")
        features = read_precomputed(options.vectors, dataset)
    else:
        found = _embed_texts(options, dataset, out, console)
        if found is None:
            return 0
        features = found
    if options.out is None:
        out = out / re.sub(r"[^\w.-]+", "-", features.manifest.source)
    check_features(features, dataset, features.manifest.source)
    features.write(out)
    coverage = features.manifest.coverage
    console.print(
        f"{features.manifest.source}: intents of {features.user_intent.shape[1]} numbers, profiles "
        f"of {features.user_profile.shape[1]}; not empty: {coverage['users']:.1%} of users, "
        f"{coverage['items']:.1%} of items",
    )
    console.print(f"wrote {out / MANIFEST}")
    return 0


def _embed_texts(
    options: argparse.Namespace, dataset: PreparedDataset, out: Path, console: Console
) -> TextFeatures | None:
    """The features; None after a dry run."""
    if options.documents is not None:
        documents = read_documents(options.documents, dataset.fingerprint)
    else:
        documents = offline_documents(_collect(options, dataset), dataset.fingerprint)
    if options.embedder != "openai-compatible":
        return embed_documents(documents, _local_embedder(options), dataset.meta.name)
    answers = AnswerCache(options.answers or out / ANSWERS)
    with _endpoint(options) as endpoint:
        embedder = EndpointEncoder(endpoint, answers, _model(options), console, options.concurrency)
        missing = embedder.missing(stack_columns(documents))
        tokens = sum(map(len, missing)) // CHARACTERS_A_TOKEN
        console.print(f"{len(missing)} texts to send, about {tokens:,} tokens")
        _say_cost(console, "about", tokens, 0, options)
        if options.dry_run:
            console.print(SENT_NOTHING)
            return None
        if missing:
            answers.check_writable()
        _say_in_clear(endpoint)
        try:
            return embed_documents(documents, embedder, dataset.meta.name)
        finally:
            _say_usage(console, endpoint.usage, options)


def _local_embedder(options: argparse.Namespace) -> Embedder:
    match options.embedder:
        case "tfidf-svd":
            return TfidfSvd(options.dims, options.min_df, options.max_df)
        case "sentence-transformers":
            return SentenceEncoder(_model(options), options.revision, options.device)
        case _:
            return HiddenStateEncoder(
                _model(options),
                options.revision,
                options.pooling,
                options.max_tokens,
                options.device,
            )


def _collect(options: argparse.Namespace, dataset: PreparedDataset) -> TextData:
    if options.publisher is None:
        return collect_texts(dataset)
    raw = read_raw_texts(
        dataset,
        options.publisher,
        options.reviews,
        options.metadata,
        options.item_ids,
        options.user_ids,
    )
    return collect_texts(dataset, raw)


def _settings(options: argparse.Namespace) -> Settings:
    limits: dict[str, Any] = {
        "items_a_user": options.items_a_user,
        "review_characters": options.review_characters,
    }
    if options.parameters is not None:
        try:
            limits["parameters"] = json.loads(options.parameters)
        except ValueError as error:
            raise RequestError(f"--parameters: not JSON: {error}") from None
        if not isinstance(limits["parameters"], dict):
            raise RequestError('--parameters: expected a JSON object, such as {"temperature": 0}')
        check_parameters(limits["parameters"], os.environ.get(options.key_variable, "").strip())
    return Settings(_model(options), **limits)


def _model(options: argparse.Namespace) -> str:
    if not options.model:
        raise RequestError(f"--embedder {options.embedder} needs --model")
    return str(options.model)


def _endpoint(options: argparse.Namespace) -> Endpoint:
    url = options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    return Endpoint(url, options.key_variable, options.timeout)


def _say_in_clear(endpoint: Endpoint) -> None:
    if endpoint.in_clear:
        plain_console(stderr=True).print(
            f"intentbench: {endpoint.base_url}: the key goes there without encryption; is there an "
            "https://?",
            markup=False,
        )


def _say_cost(
    console: Console, about: str, tokens_in: int, tokens_out: int, options: argparse.Namespace
) -> None:
    if options.price_in is None and options.price_out is None:
        console.print("cost: not known; give --price-in and --price-out")
        return
    price = tokens_in * (options.price_in or 0) + tokens_out * (options.price_out or 0)
    console.print(f"cost: {about} {price / 1e6:.4f} USD")


def _say_usage(console: Console, usage: Usage, options: argparse.Namespace) -> None:
    console.print(
        f"sent {usage.requests} requests, {usage.retries} of them again: {usage.tokens_in:,} "
        f"tokens in, {usage.tokens_out:,} out",
    )
    _say_cost(console, "as the server counts", usage.tokens_in, usage.tokens_out, options)


def _say_documents(console: Console, documents: DocumentSet) -> None:
    for side, texts in (("users", documents.users), ("items", documents.items)):
        filled = sum(any(parts) for parts in zip(*texts.intents, strict=True))
        rows = len(texts.profiles) - (side == "items")
        console.print(f"{side}: {filled} of {rows} have a text")
    if documents.fallback_share:
        share = documents.fallback_share
        console.print(f"{share:.1%} of the intents are the offline summariser's")
