"""InDiRec with behaviours: merged it is InDiRec; embedded it reads them; apart it clusters them."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.sequence import SequenceDataModule
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.indirec import InDiRec
from intentbench.models.indirec_behaviours import InDiRecBehaviours
from intentbench.nn.behaviours import ClustersByBehaviour
from tests.models.indirec import SMALL


@cache
def dataset() -> PreparedDataset:
    return load_prepared(prepare("synthetic-tiny"))


def module(data: PreparedDataset | None = None) -> SequenceDataModule:
    return SequenceDataModule(data or dataset(), layout="prefix", window=8, batch_size=64)


def trained(cls: type[InDiRec], epochs: int = 1, **arguments: Any) -> InDiRec:
    torch.manual_seed(0)
    data = module()
    model = cls(data.n_items, data.n_users, **SMALL | arguments)
    quiet_trainer(epochs).fit(model, data)
    return model.eval()


def other_behaviours(data: PreparedDataset) -> PreparedDataset:
    """The same events, each under another behaviour."""
    assert data.actions is not None
    return replace(data, actions=(data.actions + 1) % len(data.meta.actions))


def test_merged_it_is_indirec_bit_for_bit() -> None:
    one, other = trained(InDiRec, 2), trained(InDiRecBehaviours, 2, behaviours="merged")
    state = other.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("behaviours", ["merged", "clusters", "embedded"])
def test_scores_depend_on_behaviours_where_they_are_embedded(behaviours: str) -> None:
    model = trained(InDiRecBehaviours, behaviours=behaviours)
    assert isinstance(model, InDiRecBehaviours)
    batch = next(iter(module().test_dataloader()))
    with torch.no_grad():
        before = model.score(batch)
        model.take(other_behaviours(dataset()))
        after = model.score(batch)
    assert before.equal(after) == (behaviours != "embedded")


def test_an_embedded_behaviour_is_that_of_the_input_and_of_no_later_event() -> None:
    model = trained(InDiRecBehaviours, behaviours="embedded")
    assert isinstance(model, InDiRecBehaviours)
    data = dataset()
    assert data.actions is not None
    for batch in module().test_dataloader():
        typed = model._typed(batch).items
        for row in range(0, len(batch.users), 5):
            user, length = int(batch.users[row]), int(batch.lengths[row])
            stop = int(data.offsets[user] + batch.key[row])
            events = slice(stop - length, stop)
            wanted = data.items[events] + (data.n_items + 1) * (1 + data.actions[events].long())
            assert typed[row, :length].equal(wanted)
            assert not typed[row, length:].any()


def test_training_reaches_the_vectors_of_behaviours_and_x_0_has_none() -> None:
    before = InDiRecBehaviours(dataset().n_items, 64, **SMALL)
    names = dict(before.named_parameters())
    assert "encoder.items.behaviours.weight" in names
    model = trained(InDiRecBehaviours, behaviours="embedded")
    vectors = model.get_parameter("encoder.items.behaviours.weight")
    assert not vectors[0].any()
    assert vectors[1 : 1 + len(dataset().meta.actions)].any(1).all()
    assert model.item_table().shape == (dataset().n_items + 1, SMALL["width"])
    batch = next(iter(module().train_dataloader()))
    diffused = model._diffused(batch).items[:, 0]
    assert model.encoder.items(diffused).equal(model.item_table()[batch.labels])


def test_clusters_apart_hold_one_behaviour_each() -> None:
    model = trained(InDiRecBehaviours, behaviours="clusters")
    assert isinstance(model.members, ClustersByBehaviour)
    used = {int(label) // SMALL["clusters"] for label in model.members.labels}
    assert used == set(range(1, 1 + len(dataset().meta.actions)))


def test_data_without_behaviours_is_refused_unless_merged() -> None:
    bare = replace(dataset(), actions=None)
    arguments = {**SMALL, "behaviours": "embedded"}
    with pytest.raises(RequestError, match="has no behaviours"):
        InDiRecBehaviours.check(bare, arguments)
    InDiRecBehaviours.check(bare, {**arguments, "behaviours": "merged"})
    with pytest.raises(RequestError, match="take"):
        InDiRecBehaviours(bare.n_items, 64, **SMALL).encode(next(iter(module().test_dataloader())))
