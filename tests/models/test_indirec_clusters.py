"""InDiRec with other clusters and signals: what is the same, what differs, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.indirec import InDiRec
from intentbench.models.indirec_clusters import InDiRecClusters
from tests.models.indirec import SMALL, cycles, e_step, first_batch, terms_of


def build(**arguments: Any) -> InDiRecClusters:
    """A method after its first E-step, in training mode."""
    data = cycles()
    torch.manual_seed(0)
    model = InDiRecClusters(data.n_items, data.n_users, **SMALL | arguments)
    model.prepare(data.training())
    e_step(model)
    return model


def trained(cls: type[InDiRec], epochs: int, **arguments: Any) -> InDiRec:
    data = SequenceDataModule(planted_cycles(), layout="prefix", window=8, batch_size=64)
    torch.manual_seed(0)
    model = cls(data.n_items, data.n_users, **SMALL | arguments)
    quiet_trainer(epochs).fit(model, data)
    return model


def test_with_kmeans_and_members_it_is_indirec_bit_for_bit() -> None:
    one, other = trained(InDiRec, 2), trained(InDiRecClusters, 2)
    state = other.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("clustering", ["frozen", "random", "balanced"])
def test_other_clusters_train_another_model(clustering: str) -> None:
    one, other = trained(InDiRec, 2), trained(InDiRecClusters, 2, clustering=clustering)
    assert torch.isfinite(other.encoder.items.weight).all()
    assert not other.encoder.items.weight.equal(one.encoder.items.weight)


def test_a_signal_of_centroids_is_their_mixture_and_trains_no_encoder() -> None:
    model, batch = build(signal="centroids", nearest=3, signal_temperature=0.5), first_batch()
    own = model.members.prefixes.numbers(batch.users, batch.key)
    signal = model._signal(batch, model.members.labels[own])
    assert signal is not None
    assert signal.equal(model.members.mix(own))
    assert not signal.requires_grad
    terms_of(model, batch)["diffusion"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in model.encoder.blocks.parameters())
    assert model.encoder.items.weight.grad is not None  # through x_0
    assert all(p.grad is not None for p in model.diffusion.denoiser.network.parameters())


def test_centroids_need_a_clustering_that_has_some() -> None:
    for clustering in ("frozen", "balanced", "feature"):
        with pytest.raises(RequestError, match="no centroids of the epoch"):
            build(signal="centroids", clustering=clustering)


def test_clusters_of_a_feature_are_taken_from_the_dataset(tmp_path: Path) -> None:
    dataset = load_prepared(prepare("synthetic-tiny", tmp_path))
    data = SequenceDataModule(dataset, layout="prefix", window=8, batch_size=64)
    name = dataset.meta.item_features[0]
    settings = {**SMALL, "clustering": "feature", "feature": name}
    model = InDiRecClusters(data.n_items, data.n_users, **settings)
    quiet_trainer(1).fit(model, data)
    values, _ = dataset.item_feature(name)
    assert 1 < len(set(model.members.labels.tolist())) <= len(set(values.tolist())) + 1
    batch = next(iter(data.train_dataloader()))
    assert model.eval().intents(batch).assignment is None, "they are of prefixes, not of states"

    with pytest.raises(RequestError, match=r"no item feature 'colour'.*it has: "):
        InDiRecClusters.check(dataset, {**model.hparams, "feature": "colour"})
    InDiRecClusters.check(dataset, {**model.hparams, "clustering": "kmeans", "feature": ""})
