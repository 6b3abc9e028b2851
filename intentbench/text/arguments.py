"""Arguments of `intentbench text`, and which go together; imports nothing that is slow to load."""

import argparse
import math
from pathlib import Path

from datamodules.errors import RequestError

EMBEDDERS = (
    "tfidf-svd",
    "sentence-transformers",
    "transformers",
    "openai-compatible",
    "precomputed",
)
PUBLISHERS = ("amazon-2014", "amazon-2018", "amazon-2023", "yelp")
LONGEST = 86_400
"""Seconds of silence that can be waited for: a day; sockets take no number of any size."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command its actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, add, text in (
        ("summarise", _summarise, "Write texts of users and items: extracted, or by --model."),
        ("embed", _embed, "Turn texts of users and items into vectors."),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("dataset", help="a catalogue key, or a prepared dataset's folder")
        action.add_argument(
            "-o", "--out", type=Path, metavar="DIR", help="default: in text/DATASET"
        )
        action.add_argument("--data-root", type=Path, help="where data files lie")
        add(action)
        _raw_files(action)
        _endpoint(action)
    text = "Draw what a finished trial makes of texts: densities, and one user's matching."
    _show(actions.add_parser("show", help=text, description=text))


def _summarise(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="of an endpoint; without it texts are extracted, offline")
    parser.add_argument("--parameters", metavar="JSON", help="of each request; temperature 0")
    parser.add_argument("--items-a-user", type=int, default=20, help="in a prompt, at most")
    parser.add_argument("--review-characters", type=int, default=300, help="reviews are cut here")
    parser.add_argument("--fall-back", action="store_true", help="extract where no answer came")


def _embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--documents", type=Path, metavar="DIR", help="that summarise wrote")
    parser.add_argument("--embedder", choices=EMBEDDERS, default="tfidf-svd")
    parser.add_argument("--model", help="name or folder, for all but tfidf-svd and precomputed")
    parser.add_argument("--revision", help="commit of a model of the hub")
    parser.add_argument("--dims", type=int, default=128, help="tfidf-svd: width of each half")
    parser.add_argument("--min-df", type=int, default=5, help="tfidf-svd: documents a word needs")
    parser.add_argument("--max-df", type=float, default=0.5, help="tfidf-svd: share it may be in")
    parser.add_argument("--pooling", choices=["mean", "last"], default="mean")
    parser.add_argument("--max-tokens", type=int, default=512, help="transformers: cut texts here")
    parser.add_argument("--device", help="cpu, cuda")
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="precomputed: its .npy files")


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a trial's folder")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--user", metavar="ID", help="as the data names it; default: of median use")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="after N epochs too: trains again, takes its time"
    )
    parser.add_argument("--data-root", type=Path, help="where data files lie")


def _raw_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("raw files")
    group.add_argument("--publisher", choices=PUBLISHERS, help="whose they are")
    group.add_argument("--metadata", metavar="FILE", help="titles and descriptions; also hf://")
    group.add_argument("--reviews", metavar="FILE", help="only those of training are used")
    group.add_argument("--item-ids", type=Path, metavar="TSV", help="own id, publisher's id")
    group.add_argument("--user-ids", type=Path, metavar="TSV", help="the same, of users")


def _endpoint(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("endpoint")
    group.add_argument(
        "--base-url", help="default: $OPENAI_BASE_URL, then https://api.openai.com/v1"
    )
    group.add_argument("--key-variable", default="OPENAI_API_KEY", metavar="NAME")
    group.add_argument("--concurrency", type=int, default=8, help="requests in flight")
    group.add_argument("--timeout", type=float, default=60.0, help="seconds of silence")
    group.add_argument("--answers", type=Path, metavar="FILE", help="default: in --out")
    group.add_argument("--dry-run", action="store_true", help="count and estimate, send nothing")
    group.add_argument("--price-in", type=float, help="USD a million tokens")
    group.add_argument("--price-out", type=float, help="USD a million tokens")


def check_options(options: argparse.Namespace) -> None:
    """Refuse options of `summarise` and `embed` that cannot be met, or that nothing would read.

    Raises:
        RequestError: there is one.
    """
    _check_numbers(options)
    _check_files(options)
    _check_model(options)


def _check_numbers(options: argparse.Namespace) -> None:
    for name in ("items_a_user", "review_characters", "concurrency", "max_tokens", "min_df"):
        if getattr(options, name, 1) < 1:
            given = f"--{name.replace('_', '-')}"
            raise RequestError(f"{given} {getattr(options, name)}: must be at least 1")
    if not 0 < options.timeout <= LONGEST:  # not a number is neither
        raise RequestError(f"--timeout {options.timeout}: must be above 0, at most {LONGEST}")
    share = getattr(options, "max_df", 1.0)
    if not 0 < share <= 1:
        raise RequestError(f"--max-df {share}: a share of the documents, above 0, at most 1")
    for name, price in (("--price-in", options.price_in), ("--price-out", options.price_out)):
        if price is not None and not 0 <= price < math.inf:
            raise RequestError(f"{name} {price}: must be a number from 0 on")


def _check_files(options: argparse.Namespace) -> None:
    if not options.publisher:
        if options.metadata or options.reviews:
            raise RequestError("--metadata and --reviews need --publisher: whose files are they?")
        if options.item_ids or options.user_ids:
            raise RequestError("--item-ids and --user-ids need --publisher: whose ids are they?")
    if options.action != "embed":
        return
    if options.documents and options.publisher:
        raise RequestError("--documents are embedded as they are; give raw files to summarise")
    if options.vectors and options.embedder != "precomputed":
        raise RequestError(
            f"--vectors: --embedder {options.embedder} reads none; name --embedder precomputed, or "
            "leave them out"
        )


def _check_model(options: argparse.Namespace) -> None:
    embeds = options.action == "embed"
    if options.model is not None and not options.model.strip():
        raise RequestError("--model is empty; name one, or leave the option out")
    if embeds and options.model is not None and options.embedder in ("tfidf-svd", "precomputed"):
        raise RequestError(
            f"--model {options.model}: --embedder {options.embedder} has none; name an embedder "
            "that has, or leave it out"
        )
    given = not embeds and (options.fall_back or options.parameters is not None)
    if given and options.model is None:
        raise RequestError(
            "--fall-back and --parameters are for an endpoint; name its --model, or leave them out"
        )
    asks = options.model is not None and (not embeds or options.embedder == "openai-compatible")
    if options.dry_run and not asks:
        raise RequestError(
            "--dry-run counts what an endpoint would be asked; name its --model, and for embed "
            "--embedder openai-compatible"
        )
