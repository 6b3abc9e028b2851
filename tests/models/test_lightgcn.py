"""LightGCN: dense sums of powers, what it is without layers, and what scoring needs."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer, score_all
from intentbench.models.base import GradientRecommender
from intentbench.models.bpr_mf import BPRMF
from intentbench.models.lightgcn import LightGCN
from tests.models.graphs import (
    bpr_reference,
    built,
    first_batch,
    gradients,
    normalised_adjacency,
    pairs_of,
    penalty_reference,
    stepped,
)


def _model(
    data: SequenceDataModule, layers: int = 3, keep: float = 1.0, l2: float = 1e-2
) -> LightGCN:
    model = built(lambda v, n: LightGCN(v, n, width=8, layers=layers, keep=keep, l2=l2), data)
    assert isinstance(model, LightGCN)
    return model


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_vectors_are_the_sum_of_powers_of_the_dense_matrix(layers: int) -> None:
    data = pairs_of()
    model, matrix = _model(data, layers), normalised_adjacency(data)
    nodes = model.nodes().detach().numpy().astype(np.float64)
    powers = [np.linalg.matrix_power(matrix, power) @ nodes for power in range(layers + 1)]
    views = model.views(model.nodes())
    for layer, power in zip(views.layers, powers, strict=True):
        np.testing.assert_allclose(layer.detach(), power, atol=1e-6)
    np.testing.assert_allclose(views.final.detach(), sum(powers), atol=1e-6)


def test_loss_is_that_of_the_dense_vectors() -> None:
    data = pairs_of()
    model, batch = _model(data), first_batch(data)
    torch.manual_seed(3)
    triples = model.triples(batch)
    torch.manual_seed(3)
    terms = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    nodes = model.nodes().detach().numpy().astype(np.float64)
    matrix = normalised_adjacency(data)
    final = sum(np.linalg.matrix_power(matrix, power) @ nodes for power in range(4))
    assert terms["bpr"] == pytest.approx(bpr_reference(np.asarray(final), triples), rel=1e-5)
    assert terms["l2"] == pytest.approx(penalty_reference(model, 1e-2), rel=1e-5)
    assert terms["total"] == pytest.approx(terms["bpr"] + terms["l2"], rel=1e-6)
    assert terms.keys() == {"total", "bpr", "l2"}


def test_without_layers_it_is_matrix_factorisation_bit_for_bit() -> None:
    def graph(n_items: int, n_users: int) -> LightGCN:
        return LightGCN(n_items, n_users, width=16, layers=0, keep=1.0, l2=1e-3, learning_rate=1e-2)

    def factors(n_items: int, n_users: int) -> BPRMF:
        return BPRMF(
            n_items,
            n_users,
            width=16,
            l2=1e-3,
            learning_rate=1e-2,
            item_bias=False,
            l2_on="all",
            initial="xavier",
        )

    one, losses, ranks = stepped(graph)
    other, other_losses, other_ranks = stepped(factors)
    assert losses == other_losses
    assert len(set(losses)) == len(losses)
    assert ranks.equal(other_ranks)
    assert isinstance(one, LightGCN)
    assert isinstance(other, BPRMF)
    assert one.users.equal(other.users.weight)
    assert one.items.equal(other.items.weight[1:])


def test_keeping_all_edges_is_no_dropout() -> None:
    def whole(n_items: int, n_users: int) -> GradientRecommender:
        return LightGCN(n_items, n_users, width=8, keep=1.0)

    def dropped(n_items: int, n_users: int) -> GradientRecommender:
        return LightGCN(n_items, n_users, width=8, keep=0.5)

    data = pairs_of()
    model = _model(data)
    training = model.views(model.nodes()).final
    model.eval()
    assert training.equal(model.views(model.nodes()).final)
    assert all(a.equal(b) for a, b in zip(gradients(whole), gradients(whole), strict=True))
    assert not gradients(whole)[0].equal(gradients(dropped)[0])


def test_one_graph_is_drawn_a_step_and_serves_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(pairs_of(), keep=0.5)
    graph = model.known_graph()
    weights = [graph.dropped(0.5)]
    assert (weights[0] == 0).any()
    asked: list[float] = []

    def recorded(keep: float) -> torch.Tensor:
        asked.append(keep)
        return weights[0]

    monkeypatch.setattr(graph, "dropped", recorded)
    layers = model.views(model.nodes()).layers
    assert asked == [0.5]
    for below, above in pairwise(layers):
        assert above.equal(graph.product(weights[0], below))


def test_no_edge_is_dropped_at_scoring_and_nothing_is_drawn() -> None:
    data = pairs_of()
    dropping, whole = _model(data, keep=0.3), _model(data, keep=1.0)
    assert not dropping.views(dropping.nodes()).final.equal(whole.views(whole.nodes()).final)
    state = torch.get_rng_state()
    batches = list(data.test_dataloader())
    scores = score_all(dropping, batches)
    assert scores.equal(score_all(whole, batches))
    assert scores.equal(score_all(dropping, batches))
    assert torch.get_rng_state().equal(state)


def test_scores_are_inner_products() -> None:
    data = pairs_of()
    model = _model(data).eval()
    final = model.views(model.nodes()).final.detach()
    batch = next(iter(data.test_dataloader()))
    scores = model.score(batch)
    torch.testing.assert_close(scores[:, 1:], final[batch.users] @ final[data.n_users :].T)
    assert (scores[:, 0] == -torch.inf).all()


def test_permuting_item_ids_permutes_scores() -> None:
    dataset = planted_cycles()
    permuted = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randperm(dataset.n_items) + 1])
    items = permuted[dataset.items.long()].to(dataset.items.dtype)
    one = SequenceDataModule(dataset, layout="pair")
    other = SequenceDataModule(replace(dataset, items=items), layout="pair")
    model, changed = _model(one), _model(other)
    with torch.no_grad():
        changed.items[permuted[1:] - 1] = model.items
    scores = score_all(model, list(one.test_dataloader()))
    scores_changed = score_all(changed, list(other.test_dataloader()))
    torch.testing.assert_close(scores_changed[:, permuted], scores)
    assert not scores_changed.equal(scores)


def test_scores_follow_the_weights_at_the_next_evaluation() -> None:
    data = pairs_of()
    model = _model(data)
    batches = list(data.test_dataloader())
    before = score_all(model, batches)
    model.train()
    with torch.no_grad():
        model.users.mul_(2)
        model.items.mul_(2)
    torch.testing.assert_close(score_all(model, batches), 4 * before)


def test_a_checkpoint_scores_without_the_graph(tmp_path: Path) -> None:
    data = pairs_of()
    torch.manual_seed(0)
    model = LightGCN(data.n_items, data.n_users, width=8)
    trainer = quiet_trainer(2)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    loaded = LightGCN.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert loaded.graph is None
    batches = list(data.test_dataloader())
    scores = score_all(loaded, batches)
    assert scores[:, 1:].any()
    assert scores.equal(score_all(model, batches))


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    data = pairs_of()
    with pytest.raises(RuntimeError, match="prepare"):
        LightGCN(data.n_items, data.n_users).loss(first_batch(data))
