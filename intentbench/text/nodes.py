"""Texts of the nodes of a graph, from whichever source a method names."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from intentbench.text.features import TextFeatures, load_features, offline_features

OFFLINE = "tfidf-svd"
"""TF-IDF and truncated SVD of the dataset's own texts: needs no network and no model."""

GAUSSIAN = "gaussian"
"""A control: numbers of the same shape that say nothing."""

SHUFFLED = "shuffled:"
"""A control: before another source, its rows dealt out anew among users and among items."""


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
        source: "tfidf-svd"; a folder made by `intentbench text embed`; "gaussian"; or
            "shuffled:" before one of the others.
        dataset: whose users and items they describe.
        intent_width: d_t that the method was built for; of "tfidf-svd", half comes from what is
            liked, half from what is disliked. None: they are not read, and may have any.
        profile_width: d_p.

    Raises:
        RequestError: the dataset has no texts, the folder is of another dataset, or the features
            have other widths.
    """
    if source.startswith(SHUFFLED):
        found = find_texts(source.removeprefix(SHUFFLED), dataset, intent_width, profile_width)
        return _dealt_out(found, dataset.n_users)
    if source == GAUSSIAN:
        n = dataset.n_users + dataset.n_items
        return NodeTexts(_noise(n, intent_width or 0, seed=0), _noise(n, profile_width, seed=1))
    found = _joined(
        offline_features(dataset, profile_width)
        if source == OFFLINE
        else load_features(Path(source), dataset)
    )
    wanted = {"intent_width": intent_width, "profile_width": profile_width}
    present = {"intent_width": found.intent.shape[1], "profile_width": found.profile.shape[1]}
    for name, width in wanted.items():
        if width not in (None, present[name]):
            raise RequestError(
                f"{dataset.meta.name}: text {source!r} has features of {present[name]} columns, "
                f"not {width}; set {name}: {present[name]}"
            )
    return found


def _noise(n: int, width: int, seed: int) -> Tensor:
    """Of a seed of its own, so that a method reads the same whatever else it reads."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def _joined(found: TextFeatures) -> NodeTexts:
    return NodeTexts(
        torch.cat([found.user_intent, found.item_intent[1:]]),
        torch.cat([found.user_profile, found.item_profile[1:]]),
    )


def _dealt_out(found: NodeTexts, n_users: int) -> NodeTexts:
    """Rows in another order, users among users and items among items: marginals stay."""
    generator = torch.Generator().manual_seed(0)
    n = len(found.intent)
    users = torch.randperm(n_users, generator=generator)
    items = n_users + torch.randperm(n - n_users, generator=generator)
    order = torch.cat([users, items])
    return NodeTexts(found.intent[order], found.profile[order])
