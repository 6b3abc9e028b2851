"""InDiRec: what its specification says must hold of a step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD
from intentbench.contracts.data import build_dataset
from intentbench.contracts.subject import score_all
from intentbench.models.indirec import InDiRec
from intentbench.nn.grouping import encode_last
from intentbench.nn.prefixes import Prefixes
from tests.models.indirec import PRESETS, SMALL, VIEWS, build, cycles, first_batch, terms_of
from tests.models.reference import published


def _gradients(model: InDiRec, name: str) -> set[str]:
    """Which parts take a gradient from one term alone."""
    model.zero_grad()
    terms_of(model, first_batch())[name].backward()  # type: ignore[no-untyped-call]
    parts = {
        "denoiser": model.diffusion.denoiser.network,
        "time": model.diffusion.denoiser.time,
        "encoder": model.encoder.blocks,
        "items": model.encoder.items,
    }
    found = {
        part
        for part, module in parts.items()
        if any(p.grad is not None and p.grad.any() for p in module.parameters())
    }
    nothing = model.diffusion.denoiser.nothing.grad
    return found | ({"nothing"} if nothing is not None and nothing.any() else set())


def test_states_do_not_see_later_items_nor_padding() -> None:
    encoder = build().encoder.eval()
    items = torch.randint(1, 41, (5, 8))
    changed = torch.cat([items[:, :4], items[:, 4:] % 40 + 1], 1)
    assert encoder(changed)[:, :4].equal(encoder(items)[:, :4])
    padded = torch.cat([items[:, :4], torch.full((5, 4), PAD)], 1)
    torch.testing.assert_close(encoder(padded)[:, :4], encoder(items[:, :4]))


def test_samples_are_every_training_item_but_the_first_once() -> None:
    users = [list(range(1, n + 1)) for n in (4, 5, 9, 30, 3)]
    dataset = build_dataset("x", users, 30)
    data = SequenceDataModule(dataset, layout="prefix", window=6, targets="every")
    batch, rows = first_batch(data), []
    for row, user in enumerate(batch.users.tolist()):
        target = int(batch.labels[row])
        assert batch.items[row, : batch.lengths[row]].tolist() == users[user][: target - 1][-6:]
        rows.append((user, target))
    assert sorted(rows) == [(u, k) for u, items in enumerate(users) for k in items[1:-2]]
    assert len(rows) == sum(len(items) - 3 for items in users)


@pytest.mark.parametrize(
    ("name", "count"), [("beauty", 131_413), ("sports", 189_543), ("toys", 109_361)]
)
def test_published_data_have_the_known_number_of_samples(
    name: str, count: int, real_data: Path
) -> None:
    assert len(Prefixes(published(name, real_data).training(), 50)) == count


def test_clusters_serve_training_alone() -> None:
    model = build().eval()
    batches = list(cycles().test_dataloader())
    scores = score_all(model, batches)
    del model.members, model.diffusion
    assert score_all(model, batches).equal(scores)


def test_gradients_reach_what_they_should() -> None:
    shared = {"encoder", "items"}
    model = build(signal_dropout=0.5)
    assert _gradients(model, "next_item") == shared
    assert _gradients(model, "contrast") == shared
    assert _gradients(model, "diffusion") == shared | {"denoiser", "time", "nothing"}
    hidden = build(signal_dropout=1.0)
    assert _gradients(hidden, "diffusion") == {"items", "denoiser", "time", "nothing"}
    hidden.detach_x0 = True
    assert _gradients(hidden, "diffusion") == {"denoiser", "time", "nothing"}
    assert _gradients(build(signal_dropout=0.0), "diffusion") == shared | {"denoiser", "time"}


@pytest.mark.parametrize("target", ["item", "sequence"])
def test_what_is_diffused_is_the_target_or_the_items_in_order(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build(diffusion_target=target), first_batch()
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    loss = model.diffusion.loss

    def watched(clean: Tensor, signal: Tensor, rows: Tensor) -> Tensor:
        calls.append((clean, signal, rows))
        return loss(clean, signal, rows)

    monkeypatch.setattr(model.diffusion, "loss", watched)
    terms_of(model, batch)
    ((clean, signal, rows),) = calls
    diffused = [
        [int(label)] if target == "item" else items[:length].tolist()
        for items, length, label in zip(batch.items, batch.lengths, batch.labels, strict=True)
    ]
    assert (max(map(len, diffused)) > 1) == (target == "sequence")
    assert clean.equal(model.item_table()[[item for row in diffused for item in row]])
    assert rows.tolist() == [k for k, row in enumerate(diffused) for _ in row]
    assert len(signal) == len(diffused)


@pytest.mark.parametrize("preset", ["code", "paper", "repaired"])
def test_total_is_the_weighted_sum_of_the_terms(preset: str) -> None:
    model = build(**PRESETS["presets"][preset], lambda_diff=0.7, lambda_cl=0.3)
    terms = terms_of(model, first_batch())
    assert min(terms[name] for name in ("next_item", "diffusion", "contrast")) > 0.1
    expected = terms["next_item"] + 0.7 * terms["diffusion"] + 0.3 * terms["contrast"]
    torch.testing.assert_close(terms["total"], expected)


def test_contrast_of_the_paper_trains_the_encoder_through_the_generated_view_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch = build(**PRESETS["presets"]["paper"]), first_batch()
    view, contrast, weights = model._second_view, model._contrast, [*model.encoder.parameters()]

    def gradient() -> Tensor:
        terms = terms_of(model, batch)
        found = torch.autograd.grad(terms["contrast"], weights, materialize_grads=True)
        return torch.cat([part.flatten() for part in found])

    def of_view_alone(second: Tensor, states: Tensor, *rest: Tensor) -> Tensor:
        return contrast(second, states.detach(), *rest)

    both = gradient()
    with monkeypatch.context() as patch:
        patch.setattr(model, "_second_view", lambda *given: view(*given).detach())
        without_view = gradient()
    with monkeypatch.context() as patch:
        patch.setattr(model, "_contrast", of_view_alone)
        view_alone = gradient()
    assert view_alone.norm() > 0.1 * both.norm()
    torch.testing.assert_close(both, without_view + view_alone)


def _drawn(model: InDiRec, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """For each row of a batch: the cluster asked, the own prefix, the member drawn."""
    asked: list[Tensor] = []
    draw = model.members.draw

    def watched(clusters: Tensor, own: Tensor, noise: Tensor) -> Tensor:
        asked.extend([clusters, own, draw(clusters, own, noise)])
        return asked[2]

    model.members.draw = watched  # type: ignore[method-assign]
    terms_of(model, first_batch(), seed)
    model.members.draw = draw  # type: ignore[method-assign]
    return asked[0], asked[1], asked[2]


def test_each_row_draws_from_its_own_cluster_among_other_users() -> None:
    model, batch = build(), first_batch()
    asked, own, member = _drawn(model)
    prefixes, kmeans = model.members.prefixes, model.members.kmeans
    assert prefixes.target[own].equal(batch.labels)
    labels = torch.empty(len(prefixes), dtype=torch.int64)
    labels[model.members.codes % len(prefixes)] = model.members.codes // len(prefixes)
    assert labels[member].equal(asked)
    assert (prefixes.users[member] != prefixes.users[own]).all()
    assert len(set(asked.tolist())) > 1
    states = encode_last(batch, model.encoder.eval().last_state)
    assert asked.equal(kmeans.assign(states)), "the query has no dropout"
    assert _drawn(model.train())[2].equal(member)
    assert not _drawn(model, seed=2)[2].equal(member)


def test_a_batch_may_share_the_cluster_of_one_row() -> None:
    model = build(**PRESETS["presets"]["code"])
    asked = _drawn(model)[0]
    assert len(set(asked.tolist())) == 1
    assert len({int(_drawn(model, seed)[0][0]) for seed in range(20)}) > 1


def test_a_row_keeps_the_cluster_of_the_fit_while_its_state_moves() -> None:
    model, batch = build(), first_batch()
    own = model.members.prefixes.numbers(batch.users, batch.key)
    first = model._clusters(batch, model.encode(batch))
    assert first.equal(model.members.labels[own])
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert model._clusters(batch, model.encode(batch)).equal(first)
    model.query = "state"
    moved = model._clusters(batch, model.encode(batch))
    states = encode_last(batch, model.encoder.eval().last_state)
    assert moved.equal(model.members.kmeans.assign(states)), "the query has no dropout"
    assert not moved.equal(first)


def test_a_query_with_dropout_uses_the_state_that_is_trained() -> None:
    model, batch = build(query="dropout", dropout=0.5), first_batch()
    states = model.encode(batch)
    assert model._clusters(batch, states).equal(model.members.kmeans.assign(states))
    assert model.encoder.training


def test_rows_of_one_group_are_no_negatives() -> None:
    assert terms_of(build(clusters=1), first_batch())["contrast"] == 0
    one = replace(first_batch(), labels=torch.full_like(first_batch().labels, 7))
    assert terms_of(build(negatives_exclude="target"), one)["contrast"] == 0
    assert terms_of(build(negatives_exclude="none"), one)["contrast"] > 0
    values = {}
    for kind in ("none", "target", "cluster", "both"):
        values[kind] = terms_of(build(negatives_exclude=kind), first_batch())["contrast"].item()
    assert values["none"] > values["target"] > values["both"]
    assert values["none"] > values["cluster"] > values["both"] > 0


def test_a_row_may_change_without_changing_the_loss_of_its_group() -> None:
    model = build(negatives_exclude="both")
    clusters, labels = torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 6, 7])
    first, second = torch.randn(2, 4, 16, requires_grad=True)
    total = model._contrast(first, second, clusters, labels)
    (gradient,) = torch.autograd.grad(total, second)
    assert gradient[1].any(), "row 1 is a negative of row 3 alone"
    few = model._contrast(first[:3], second[:3], clusters[:3], torch.tensor([5, 5, 5]))
    assert few == 0


@pytest.mark.parametrize("preset", ["code", "paper", "repaired"])
def test_loss_does_not_depend_on_how_wide_the_batch_is(preset: str) -> None:
    model = build(**PRESETS["presets"][preset]).eval()
    for view in VIEWS:
        model.second_view = view  # type: ignore[assignment]
        narrow, padded = (
            terms_of(model, first_batch(cycles(batch_size=4, pad_to_window=pad)))
            for pad in (False, True)
        )
        for name in narrow:
            torch.testing.assert_close(narrow[name], padded[name], atol=1e-5, rtol=0)


def test_softmax_may_have_a_padding_and_a_mask_row() -> None:
    model = build(softmax_padding=True)
    states, labels = torch.randn(6, 16), torch.tensor([1, 5, 40, 2, 2, 9])
    assert model.mask_row is not None
    logits = states @ torch.cat([model.item_table(), model.mask_row]).T
    assert logits.shape == (6, 42)
    torch.testing.assert_close(model._next_item(states, labels), cross_entropy(logits, labels))


def test_other_second_views() -> None:
    batch = first_batch()
    model, signal = build(diffusion_target="sequence").eval(), torch.randn(64, 16)
    views = {}
    for view in VIEWS:
        model.second_view = view  # type: ignore[assignment]
        views[view] = model._second_view(batch, signal)
        assert views[view].shape == (64, 16)
    assert views["member"] is signal
    assert views["dropout"].equal(model.encode(batch))  # no dropout in evaluation mode
    assert not model.train()._second_view(batch, signal).equal(views["dropout"])
    assert not views["random"].allclose(views["dropout"])
    assert not views["generated"].requires_grad
    assert views["encoded"].requires_grad


def test_intents_are_the_nearest_centroids_and_need_no_training_events() -> None:
    model = build()
    fresh = InDiRec(40, 50, **SMALL).eval()
    fresh.load_state_dict(model.state_dict())
    batch = first_batch(cycles(layout="all"))
    state = torch.get_rng_state()
    with torch.no_grad():
        found = fresh.intents(batch)
    assert torch.get_rng_state().equal(state)
    assert found.assignment is not None
    distances = torch.cdist(found.states, fresh.members.kmeans.centroids)
    assert found.assignment.equal(distances.argmin(1))
    assert found.vectors.equal(fresh.members.kmeans.centroids[found.assignment])
    assert found.view_assignment is not None
    assert found.view_assignment.shape == found.assignment.shape == batch.labels.shape


def test_it_has_the_parameters_of_the_official_code() -> None:
    """On Beauty: V + 2 rows of 64 there, the mask row apart; and an encoder of 103,296."""
    model = InDiRec(12_101, 1)
    count = sum(parameter.numel() for parameter in model.encoder.parameters())
    assert count == 774_592 - 64 + 103_296
