"""Texts of the nodes of a graph, from whichever source a method names."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from intentbench.text.features import (
    TextFeatures,
    describe_features,
    id_features,
    load_features,
    offline_features,
)

OFFLINE = "tfidf-svd"
"""TF-IDF and truncated SVD of the dataset's own texts: needs no network and no model."""

GAUSSIAN = "gaussian"
"""A control: numbers of the same shape that say nothing."""

IDS = "ids"
"""A control: as `OFFLINE`, but that the text of each item is one word of its own."""

SHUFFLED = re.compile(r"shuffled(?:@(?P<share>[^:]+))?:(?P<source>.+)")
"""A control: before another source, its rows dealt out anew among users and among items; with a
share, such as "shuffled@0.1:tfidf-svd", those of that share of them."""


@dataclass(frozen=True)
class NodeTexts:
    """Features of nodes: N users, then V items.

    Attributes:
        intent: (n, d_t) float32.
        profile: (n, d_p) float32.
    """

    intent: Tensor
    profile: Tensor


def find_profiles(source: str, dataset: PreparedDataset, width: int) -> Tensor:
    """The features of nodes' profiles alone, (n, width); see `find_texts`.

    Raises:
        RequestError: as there.
    """
    return find_texts(source, dataset, None, width).profile


def find_texts(
    source: str, dataset: PreparedDataset, intent_width: int | None, profile_width: int
) -> NodeTexts:
    """The features of a dataset's nodes.

    Args:
        source: "tfidf-svd"; a folder made by `intentbench text embed`, as seen from the working
            directory; "gaussian"; "ids"; or "shuffled:" or "shuffled@SHARE:" before another.
        dataset: whose users and items they describe.
        intent_width: d_t that the method was built for; of "tfidf-svd", half comes from what is
            liked, half from what is disliked. None: they are not read, and may have any.
        profile_width: d_p.

    Raises:
        RequestError: the dataset has no texts, the folder is of another dataset, the features
            have other widths, or a share is none.
    """
    if match := SHUFFLED.fullmatch(source):
        found = find_texts(match["source"], dataset, intent_width, profile_width)
        return _dealt_out(found, dataset.n_users, _share(match["share"] or "1", source))
    if source == GAUSSIAN:
        n = dataset.n_users + dataset.n_items
        return NodeTexts(_noise(n, intent_width or 0, seed=0), _noise(n, profile_width, seed=1))
    found = _joined(_load(source, dataset, profile_width))
    wanted = {"intent_width": intent_width, "profile_width": profile_width}
    present = {"intent_width": found.intent.shape[1], "profile_width": found.profile.shape[1]}
    for name, width in wanted.items():
        if width not in (None, present[name]):
            raise RequestError(
                f"{dataset.meta.name}: text {source!r} has features of {present[name]} columns, "
                f"not {width}; set {name}: {present[name]}"
            )
    return found


def describe_texts(source: str, dataset: PreparedDataset, profile_width: int) -> str:
    """What a source gives, for records and pages: a checksum tells other texts under its name.

    Args:
        source: as of `find_texts`, which has found it.
        dataset: as there.
        profile_width: as there.

    Returns:
        Such as "shuffled tfidf-svd-128 (offline texts, 0123456789abcdef)".

    Raises:
        RequestError: there are no such features.
    """
    if match := SHUFFLED.fullmatch(source):
        inner = describe_texts(match["source"], dataset, profile_width)
        return f"{source[: match.start('source') - 1]} {inner}"
    if source in (GAUSSIAN, IDS):  # nothing but the data decides them
        return source
    return describe_features(source, dataset, profile_width)


def _noise(n: int, width: int, seed: int) -> Tensor:
    """Rows of about length 1, as features have, from a seed of their own for each width."""
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return drawn.div_(max(width, 1) ** 0.5)


def _load(source: str, dataset: PreparedDataset, profile_width: int) -> TextFeatures:
    if source == OFFLINE:
        return offline_features(dataset, profile_width)
    if source == IDS:
        return id_features(dataset, profile_width)
    return load_features(Path(source), dataset)


def _joined(found: TextFeatures) -> NodeTexts:
    return NodeTexts(
        torch.cat([found.user_intent, found.item_intent[1:]]),
        torch.cat([found.user_profile, found.item_profile[1:]]),
    )


def _share(text: str, source: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise RequestError(f"text {source!r}: the share must be from 0 to 1, as in shuffled@0.1:…")
    return share


def _dealt_out(found: NodeTexts, n_users: int, share: float) -> NodeTexts:
    """Rows in another order, users among users and items among items: marginals stay."""
    generator = torch.Generator().manual_seed(0)
    order = torch.arange(len(found.intent))
    for nodes in (order[:n_users].clone(), order[n_users:].clone()):
        chosen = nodes[torch.randperm(len(nodes), generator=generator)[: round(share * len(nodes))]]
        order[chosen] = chosen.roll(1)  # in random order: a cycle that moves each of them
    return NodeTexts(found.intent[order], found.profile[order])
