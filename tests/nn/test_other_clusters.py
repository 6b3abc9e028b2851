"""Clusters that do not come from k-means of the epoch, against slow counts."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.types import TrainingData
from intentbench.nn.cluster_members import ClusterMembers
from intentbench.nn.other_clusters import OtherClusters
from tests.nn.test_cluster_members import OWNERS, USERS, encode

INPUTS = [items[max(0, end - 3) : end] for items in USERS for end in range(1, len(items))]
"""Items of each prefix, in windows of three."""

TRAINING = TrainingData(
    torch.tensor([item for user in USERS for item in user]),
    torch.tensor([0, *[len(items) for items in USERS]]).cumsum(0),
    n_items=5,
)
VALUES = [[], [], [9, 7], [9], [2], [7, 2]]
"""Of items 0 (padding) to 5."""


def members(clustering: Any, clusters: int = 4, **options: Any) -> OtherClusters:
    built = OtherClusters(clusters, 2, True, clustering, **options)
    built.prepare(TRAINING, window=3)
    return built


def moved(items: Tensor) -> Tensor:
    """Another encoder than `encode`."""
    return encode(items).flip(2) * torch.tensor([-1.0, 0.3])


def test_kmeans_is_what_it_replaces() -> None:
    built, plain = members("kmeans"), ClusterMembers(4, 2, True, accumulate=False)
    plain.prepare(TRAINING, window=3)
    for step in (encode, moved):
        built.fit(step)
        plain.fit(step)
        assert built.codes.equal(plain.codes)
        assert built.labels.equal(plain.labels)


def test_frozen_clusters_are_those_of_the_first_fit_and_travel_with_the_state() -> None:
    built, first = members("frozen"), members("kmeans")
    first.fit(encode)
    built.fit(encode)
    built.fit(moved)
    assert built.labels.equal(first.labels)
    fresh = members("frozen")
    fresh.load_state_dict(built.state_dict())
    fresh.fit(moved)
    assert fresh.labels.equal(first.labels)
    assert fresh.codes.equal(built.codes)
    fresh.prepare(TRAINING, window=3)
    fresh.fit(moved)
    assert not fresh.labels.equal(first.labels), "another training starts anew"


def test_random_clusters_are_the_nearest_of_states_that_are_drawn_once() -> None:
    built = members("random")
    chosen = []
    for step in (encode, moved):
        built.fit(step)
        states = built.prefixes.encode_all(step)
        centroids = built.kmeans.centroids
        places = [
            (states == centroid).all(1).nonzero().flatten().tolist() for centroid in centroids
        ]
        assert all(places), "each is the state of a prefix"
        chosen.append(places)
        nearest = (states[:, None] - centroids).square().sum(2).argmin(1)
        assert built.labels.equal(nearest)
    assert all(set(a) & set(b) for a, b in zip(*chosen, strict=True)), "of the same prefixes"


@pytest.mark.parametrize("clusters", [1, 3, 4, 20])
def test_balanced_clusters_are_equal_and_stay(clusters: int) -> None:
    built = members("balanced", clusters)
    built.fit(encode)
    counts = Counter(built.labels.tolist())
    sizes = [counts[label] for label in range(clusters)]
    assert sum(sizes) == len(OWNERS)
    assert max(sizes) - min(sizes) <= 1
    first = built.labels
    built.fit(moved)
    assert built.labels.equal(first)


def test_clusters_of_a_feature_are_what_most_items_of_a_prefix_have() -> None:
    built = members("feature")
    offsets = torch.tensor([0, *[len(values) for values in VALUES]]).cumsum(0)
    built.take_feature(torch.tensor([v for values in VALUES for v in values]), offsets)
    built.fit(encode)
    known = sorted({v for values in VALUES for v in values})
    for number, items in enumerate(INPUTS):
        counts = Counter(v for item in items for v in VALUES[item])
        most = max(counts.values(), default=0)
        wanted = min((known.index(v) for v in counts if counts[v] == most), default=len(known))
        assert int(built.labels[number]) == wanted, items
    assert len(known) in built.labels, "one has none"
    assert built.codes.sort().values.equal(built.codes)


def test_clusters_of_a_feature_need_it() -> None:
    with pytest.raises(RuntimeError, match="take_feature"):
        members("feature").fit(encode)


@pytest.mark.parametrize("nearest", [1, 2, 4])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_mixtures_against_one_prefix_at_a_time(nearest: int, temperature: float) -> None:
    built = members("kmeans", nearest=nearest, temperature=temperature)
    built.fit(encode)
    mixed = built.mix(torch.arange(len(OWNERS)))
    for state, found in zip(built.prefixes.encode_all(encode), mixed, strict=True):
        distances = [float((state - c).norm()) for c in built.kmeans.centroids]
        order = sorted(range(4), key=distances.__getitem__)[:nearest]
        weights = torch.tensor([-distances[j] / temperature for j in order]).exp()
        wanted = (weights[:, None] * built.kmeans.centroids[order]).sum(0) / weights.sum()
        torch.testing.assert_close(found, wanted)


def test_the_nearest_alone_is_the_centroid_of_the_own_cluster() -> None:
    built = members("kmeans", nearest=1)
    built.fit(encode)
    assert built.mix(torch.arange(len(OWNERS))).equal(built.kmeans.centroids[built.labels])
