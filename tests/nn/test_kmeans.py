"""K-means beside scikit-learn's."""

import pytest
import torch
from sklearn.cluster import KMeans as Reference
from torch import Tensor

from intentbench.nn.kmeans import KMeans


def blobs(count: int = 600, clusters: int = 6, width: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 8 * torch.randn(clusters, width, generator=generator)
    labels = torch.randint(clusters, (count,), generator=generator)
    return centres[labels] + torch.randn(count, width, generator=generator), labels


def inertia(points: Tensor, model: KMeans) -> float:
    return float((points - model.centroids[model.assign(points)]).square().sum())


def test_inertia_agrees_with_scikit_learn_on_blobs() -> None:
    points, _ = blobs()
    model = KMeans(6, 5, restarts=5)
    model.fit(points)
    reference = Reference(6, n_init=5, random_state=0).fit(points.numpy())
    assert inertia(points, model) == pytest.approx(reference.inertia_, rel=1e-3)


def test_inertia_agrees_with_scikit_learn_without_structure() -> None:
    points = torch.rand(2000, 8, generator=torch.Generator().manual_seed(1))
    model = KMeans(16, 8, iterations=100, restarts=5)
    model.fit(points)
    reference = Reference(16, n_init=5, random_state=0).fit(points.numpy())
    assert inertia(points, model) == pytest.approx(reference.inertia_, rel=0.02)


def test_one_round_from_given_centroids_is_scikit_learns() -> None:
    points, _ = blobs()
    model = KMeans(6, 5, iterations=1)
    start = points[:6].clone()
    model.centroids, model.fitted = start, torch.tensor(data=True)
    model.fit(points)
    reference = Reference(6, init=start.numpy(), n_init=1, max_iter=1).fit(points.numpy())
    expected = torch.from_numpy(reference.cluster_centers_)
    torch.testing.assert_close(model.centroids, expected, atol=1e-4, rtol=0)


def test_later_fits_keep_the_numbers_of_the_clusters() -> None:
    points, _ = blobs()
    model = KMeans(6, 5)
    first = model.fit(points)
    assert model.fit(points + 0.01).equal(first)


def test_fitting_leaves_the_global_generator_alone_and_repeats_itself() -> None:
    points, _ = blobs()
    state = torch.get_rng_state()
    models = [KMeans(6, 5), KMeans(6, 5)]
    for model in models:
        model.fit(points)
    assert torch.get_rng_state().equal(state)
    assert models[0].centroids.equal(models[1].centroids)


def test_assignment_is_to_the_nearest_centroid() -> None:
    points, _ = blobs(50)
    model = KMeans(6, 5)
    labels = model.fit(points)
    assert labels.equal(torch.cdist(points, model.centroids).argmin(1))


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_points_than_clusters_give_finite_centroids(count: int) -> None:
    points, _ = blobs(count)
    model = KMeans(6, 5)
    labels = model.fit(points)
    assert model.centroids.isfinite().all()
    assert torch.allclose(model.centroids[labels], points, atol=1e-4)


def test_no_cluster_stays_empty_where_points_abound() -> None:
    points, _ = blobs()
    model = KMeans(6, 5)
    model.centroids = torch.zeros(6, 5)  # all alike: five of them start empty
    model.fitted = torch.tensor(data=True)
    assert torch.bincount(model.fit(points), minlength=6).min() > 0


def test_large_sets_are_sampled_but_wholly_assigned() -> None:
    points, _ = blobs(600)
    model = KMeans(6, 5, points_per_cluster=20)
    labels = model.fit(points)
    assert labels.shape == (600,)
    assert labels.equal(torch.cdist(points, model.centroids).argmin(1))
