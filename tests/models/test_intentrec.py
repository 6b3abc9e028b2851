"""IntentRec: what its specification says must hold."""

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import build_dataset
from intentbench.contracts.subject import quiet_trainer
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.intent import nmi
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.intentrec import Bridge, IntentRec
from intentbench.nn.intent_heads import IntentMixture
from intentbench.nn.kmeans import KMeans
from intentbench.runner.intents import collect_intents
from tests.models.events import (
    FIELDS,
    N_ITEMS,
    TINY,
    batches,
    change_after,
    event_data,
    events_of,
    gradients,
    test_batch,
    training_batch,
    without_training_after,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "v0": {"intents": (), "short_term_window": None},
    "v1": {"hierarchical": False, "short_term_window": None},
    "v2": {"short_term_window": None},
    "v3": {"short_term_window": 3000.0},
}
HIERARCHICAL = ("v2", "v3")


def _model(variant: str = "v3", **arguments: Any) -> IntentRec:
    torch.manual_seed(0)
    shape = {"short_width": 8, "intent_width": 8, "blocks": 2, "heads": 2}
    given = {**TINY, **shape, **VARIANTS[variant], **arguments}
    model = IntentRec(N_ITEMS, 6, **given)
    model.take(event_data())
    return model


def _loud(variant: str, **arguments: Any) -> IntentRec:
    """Weights that are larger than the initialisation, so that differences show; in float64."""
    model = _model(variant, **arguments).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def _read(model: IntentRec, data: Any, user: int = 0) -> dict[str, Tensor]:
    """Scores, distributions, S and Z at a user's first ten events, each (L, …)."""
    events = events_of(model, data, user)
    events = events._replace(numbers=events.numbers.double())
    found = model.read(events)
    parts = {"scores": found.queries @ model.item_table().T}
    if model.predicts:
        shares = model.heads.distributions(found.logits)
        parts.update(zip(model.predicts, shares, strict=True))
    if model.short_term is not None:
        seen = model.features(events.items, events.values, events.numbers)
        parts["short"] = model.short_term(seen, events.times, events.codes)
    if found.mixture is not None:
        parts["mixture"] = found.mixture
    return {name: part[0].detach() for name, part in parts.items()}


@pytest.mark.parametrize("position", ["time+order", "time", "order", "none"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_sees_later_events(variant: str, position: str) -> None:
    """Property 1, and 12: the label of the next event is no feature of this one."""
    model = _loud(variant, position=position)
    k = 5
    data = without_training_after(event_data(), 0, k)
    before, after = _read(model, data), _read(model, change_after(data, 0, k))
    assert set(before) >= {"scores"}
    for name, values in before.items():
        assert values[: k + 1].equal(after[name][: k + 1]), name
        assert not torch.allclose(values[k + 1 :], after[name][k + 1 :]), name


def test_a_shift_by_weeks_changes_no_output() -> None:
    """Property 4."""
    data = event_data()
    assert data.timestamps is not None
    model = _loud("v3")
    before = _read(model, data)
    after = _read(model, replace(data, timestamps=data.timestamps + 3 * 7 * 86_400))
    assert all(values.equal(after[name]) for name, values in before.items())
    other = _read(model, replace(data, timestamps=data.timestamps + 86_400))
    assert not torch.allclose(other["scores"], before["scores"])


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_predictions_feed_items_only_in_the_hierarchy(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property 5."""
    data, model = event_data(), _loud(variant)
    before = _read(model, data)["scores"]

    def other(logits: list[Tensor]) -> list[Tensor]:
        return [part.flip(-1).softmax(-1) for part in logits]

    monkeypatch.setattr(model.heads, "distributions", other)
    after = _read(model, data)["scores"]
    assert before.equal(after) == (variant not in HIERARCHICAL)


class _Constant(IntentMixture):
    def forward(self, distributions: Any) -> tuple[Tensor, Tensor | None]:
        mixture, weights = super().forward(distributions)
        return torch.ones_like(mixture), weights


def test_with_a_constant_mixture_heads_do_not_matter() -> None:
    """Property 5, its second half."""
    data, model = event_data(), _loud("v3")
    model.mixture = _Constant([size for _, size in model.intent_sizes], 8).double()
    before = _read(model, data)["scores"]
    for parameter in model.heads.parameters():
        nn.init.normal_(parameter, std=2.0)
    assert _read(model, data)["scores"].equal(before)


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_item_loss_alone_reaches_heads_through_the_mixture(variant: str) -> None:
    """Property 6."""
    model = _model(variant, intent_weight=0.0)
    terms = model.loss(training_batch(event_data()))
    assert set(terms) == {"total", "item"}, "a term of weight 0 is left out"
    got = gradients(model, terms["total"])
    assert any(name.startswith("heads") for name in got)
    for name, has in got.items():
        if name.startswith(("heads", "intent_encoder")):
            assert has == (variant in HIERARCHICAL), name


@pytest.mark.parametrize("variant", HIERARCHICAL)
def test_intent_losses_do_not_reach_the_item_encoder(variant: str) -> None:
    """Property 7."""
    model = _model(variant)
    terms = model.loss(training_batch(event_data()))
    losses = [value for name, value in terms.items() if name.startswith("intent_")]
    assert len(losses) == 3
    got = gradients(model, torch.stack(losses).sum())
    above = ("item_encoder", "output", "mixture")
    for name, has in got.items():
        assert has != name.startswith(above) or name == "intent_encoder.time.order.weight", name


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_have_the_parts_that_they_should(variant: str) -> None:
    """Property 8."""
    model = _model(variant)
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert ("short_term" in parts) == (variant == "v3")
    assert ({"intent_encoder", "mixture"} <= parts) == (variant in HIERARCHICAL)
    assert ("heads" in parts) == (variant != "v0")
    assert {"features", "item_encoder", "output"} <= parts
    if model.intent_encoder is not None:
        own = {id(p) for p in model.intent_encoder.parameters()}
        assert not own & {id(p) for p in model.item_encoder.parameters()}


def test_a_single_intent_is_all_that_is_heeded() -> None:
    """Property 9."""
    data = event_data()
    model = _loud("v3", intents=("drift",))
    found = model.read(
        (events := events_of(model, data, 0))._replace(numbers=events.numbers.double())
    )
    assert found.attention is not None
    assert model.mixture is not None
    assert found.mixture is not None
    assert (found.attention == 1).all()
    (shares,) = model.heads.distributions(found.logits)
    torch.testing.assert_close(found.mixture, model.mixture.project[0](shares))


def test_explanations_are_distributions_and_weights() -> None:
    """Properties 9 and 10."""
    model, batch = _model().eval(), test_batch(event_data())
    shares, attention = model.explain(batch)
    for part in shares:
        torch.testing.assert_close(part.sum(-1), torch.ones(len(batch.users)))
    assert attention is not None
    assert (attention > 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(len(batch.users)))
    assert _model("v0").explain(batch) == ([], None)


def test_weights_of_behaviours() -> None:
    """Property 11."""
    batch = training_batch(event_data())
    plain = _model().eval().loss(batch)
    for factor in (1.0, 5.0):
        even = {"buy": factor, "cart": factor, "view": factor}
        weighted = _model(behaviour_weights=even).eval().loss(batch)
        for name, value in plain.items():
            torch.testing.assert_close(weighted[name], value)
    model = _model(behaviour_weights={"cart": 0.0}).eval()
    without_carts = model.loss(batch)["item"]
    reading, before = model.reading(batch)
    actions = event_data().actions
    assert actions is not None
    kept = actions[before + 1] != 1
    assert 0 < kept.sum() < len(kept)
    scores = (reading.queries @ model.item_table().T)[kept]
    scores[:, 0] = -math.inf
    expected = nn.functional.cross_entropy(scores, batch.labels[kept])
    torch.testing.assert_close(without_carts, expected)
    of_input = _model(behaviour_weights={"cart": 0.0}, weight_of="input").eval().loss(batch)
    assert float(of_input["item"].detach()) != pytest.approx(float(expected.detach()), abs=1e-6)


def test_unknown_behaviours_cannot_weigh() -> None:
    message = r"no behaviour 'sell'; it has: buy, cart, view"
    with pytest.raises(RequestError, match=message):
        _model(behaviour_weights={"sell": 2.0})
    arguments = dict(_model().hparams) | {"behaviour_weights": {"sell": 2.0}}
    with pytest.raises(RequestError, match=message):
        IntentRec.check(event_data(), arguments)


def test_labels_are_those_of_the_targets_and_never_a_start() -> None:
    """Property 12."""
    data, model = event_data(), _model()
    batch = training_batch(data)
    known = model.known(torch.device("cpu"))
    _, before = model.reading(batch)
    assert data.items[before + 1].long().equal(batch.labels)
    action, drift, category = (known.labels(field, before + 1) for field in model.predicted(known))
    assert data.actions is not None
    assert action.equal(data.actions[before + 1].long())
    assert (drift > 0).all(), "label 0 is the start"
    names = known.table.intents[2].names
    held = [names[label] for label in category.long().argmax(1).tolist()]
    expected = [(item - 1) % 4 + 1 for item in batch.labels.tolist()]
    assert [int(name.split()[-1]) for name in held] == expected


def test_trimmed_padded_and_permuted_batches_agree() -> None:
    """Property 13."""
    data = event_data()
    for variant in VARIANTS:
        model = _model(variant).eval()
        narrow = model.loss(training_batch(data))
        padded = model.loss(training_batch(data, pad_to_window=True))
        for name, value in narrow.items():
            torch.testing.assert_close(padded[name], value)
        batch = test_batch(data)
        scores = model.score(batch)
        wide = test_batch(data, pad_to_window=True)
        torch.testing.assert_close(model.score(wide), scores)
        flipped = {n: getattr(wide, n).flip(0) for n in ("users", "items", "lengths", "history")}
        starts = torch.arange(len(wide.users)) * wide.items.shape[1]
        select = starts + flipped["lengths"] - 1
        turned = replace(wide, **flipped, select=select)
        torch.testing.assert_close(model.score(turned), scores.flip(0))


def test_first_losses_are_near_their_logarithms() -> None:
    """Property 14."""
    terms = _model().loss(training_batch(event_data()))
    assert float(terms["item"].detach()) == pytest.approx(math.log(N_ITEMS), rel=0.05)
    assert float(terms["intent_action"].detach()) == pytest.approx(math.log(16), rel=0.05)
    assert float(terms["intent_drift"].detach()) == pytest.approx(math.log(6), rel=0.05)
    total = terms["item"] + 0.3 * sum(
        value for name, value in terms.items() if name.startswith("intent_")
    )
    torch.testing.assert_close(terms["total"], total)


def _entering(model: IntentRec, batch: Any) -> Tensor:
    """F ⊕ S ⊕ Z (T, …) of a batch's targets, as they enter the item encoder."""
    caught: list[Tensor] = []
    model.item_encoder.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    model.reading(batch)
    return torch.cat([part.flatten(0, 1) for part in caught])[batch.select].detach()


@pytest.mark.parametrize("bridge", get_args(Bridge))
def test_parts_enter_the_item_encoder_at_like_scale(bridge: str) -> None:
    model, batch = _model(bridge=bridge).eval(), training_batch(event_data())
    entering = _entering(model, batch)
    width = model.features.width
    parts = (entering[:, :width], entering[:, width : width + 8], entering[:, width + 8 :])
    spread = [float(part.std(1).mean()) for part in parts]
    assert max(spread) < 3 * min(spread)
    time = model.item_encoder.time(model.known(torch.device("cpu")).codes[None, :10])
    assert isinstance(time, Tensor)
    assert 1 / 3 < float(time.detach().std()) < 3, "added to what has gone through a LayerNorm"


def test_no_label_at_all_gives_a_finite_mixture_and_gradient() -> None:
    """Events whose items have no category, where labels feed the item encoder."""
    data = event_data()
    offsets = torch.zeros_like(data.features["item.category.offsets"])
    offsets[-1] = len(data.features["item.category.values"])  # all of them the last item's
    bare = replace(data, features=data.features | {"item.category.offsets": offsets})
    model = _model(bridge="labels", fields={"category": "values:category:4"})
    model.take(bare)
    batch = training_batch(bare)
    reading, _ = model.reading(batch)
    assert reading.mixture is not None
    assert not reading.mixture[batch.labels < N_ITEMS].all()
    terms = model.loss(batch)
    terms["total"].backward()  # type: ignore[no-untyped-call]
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_an_item_of_the_history_can_be_first_where_it_is_not_masked() -> None:
    """Property 16."""
    data = build_dataset("repeats", [[1, 2, 1, 2, 1, 2, 1, 2]] * 4, 3)
    model = IntentRec(3, 4, **{**TINY, "fields": {}, "intents": (), "learning_rate": 1e-2})
    module = batches(data, mask_history=False)
    quiet_trainer(60).fit(model, module)
    for masked, first in ((False, 1), (True, 3)):
        pages: Any = quiet_trainer(1).predict(model, batches(data, mask_history=masked))
        assert all((page["items"][:, 0] == first).all() for page in pages)


@pytest.mark.parametrize(
    ("arguments", "cut"),
    [
        ({"bridge": "detached"}, ("heads", "intent_encoder")),
        ({"bridge": "labels"}, ("heads", "intent_encoder")),
        ({"bridge": "states"}, ("heads",)),
        ({"bridge": "mean"}, ("heads.layers.9",)),  # nothing is cut
        ({"bridge": "concatenation"}, ("heads.layers.9",)),
    ],
)
def test_other_bridges(arguments: dict[str, Any], cut: tuple[str, ...]) -> None:
    """What the item loss does not reach, where something else feeds the item encoder."""
    model = _model("v3", **arguments)
    got = gradients(model, model.loss(training_batch(event_data()))["item"])
    for name, has in got.items():
        assert has != name.startswith(cut), name
    assert ("mixture.project.0.weight" in got) == (arguments["bridge"] != "states")


def test_shared_encoder_is_one() -> None:
    model = _model("v2", shared_encoder=True)
    assert model.intent_encoder is not None
    assert model.intent_encoder.blocks is model.item_encoder.blocks
    assert model.intent_encoder.enter is not model.item_encoder.enter


def test_tied_scores_use_the_item_embeddings() -> None:
    model = _model(tie_item_weights=True)
    assert model.item_table() is model.features.items.weight


def test_heads_learn_shuffled_labels_but_tests_ask_for_true_ones() -> None:
    data, batch = event_data(), training_batch(event_data())
    plain, control = _model(), _model(shuffled_labels=True)
    assert float(plain.loss(batch)["item"].detach()) == float(control.loss(batch)["item"].detach())
    assert not plain.loss(batch)["intent_action"].equal(control.loss(batch)["intent_action"])
    for model in (plain, control):
        quiet_trainer(1).test(model, batches(data), verbose=False)
    assert plain.intent_metrics == control.intent_metrics


def test_intent_metrics_are_those_of_the_test_targets() -> None:
    data, model = event_data(), _model()
    quiet_trainer(1).test(model, batches(data, evaluation_batch_size=4), verbose=False)
    found = model.intent_metrics
    assert {name.split("/")[0] for name in found} == {"action", "drift", "category", "item"}
    assert data.actions is not None
    last = data.offsets[1:] - 1
    truth, before = data.actions[last], data.actions[last - 1]
    assert found["action/targets"] == 6
    assert found["action/accuracy_last"] == pytest.approx(float((truth == before).float().mean()))
    shares, _ = model.eval().explain(batch := test_batch(data))
    right = shares[0].argmax(1) == truth[batch.users]
    assert found["action/accuracy"] == pytest.approx(float(right.float().mean()))
    assert data.timestamps is not None
    untied = (data.timestamps[last] > data.timestamps[last - 1]).numpy()
    assert 0 < untied.sum() < 6
    assert model.table is not None
    expected = compute_metric("ndcg@10", model.table.rank[untied]).mean()
    assert found["item/ndcg@10_untied"] == pytest.approx(expected)


def test_a_test_reads_each_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = event_data(), _model()
    quiet_trainer(1).test(model, module := batches(data), verbose=False)
    batch = test_batch(data)
    scores = model.eval().score(batch)
    assert model.table is not None
    expected = ranks_from_scores(scores.detach(), batch.target, batch.masked)
    assert model.table.rank.tolist() == expected[batch.users.argsort()].tolist()
    read, count = model.reading, []

    def counted(batch: Any) -> Any:
        count.append(batch)
        return read(batch)

    monkeypatch.setattr(model, "reading", counted)
    quiet_trainer(1).test(model, module, verbose=False)
    assert len(count) == 1


def test_what_cannot_be_is_refused_in_a_line() -> None:
    data, batch = event_data(), test_batch(event_data())
    with pytest.raises(RequestError, match="each one of the fields, once: action, drift, category"):
        _model(intents=("acton",))
    with pytest.raises(RequestError, match="each one of the fields, once"):
        _model(intents=("action", "action"))
    with pytest.raises(RequestError, match=r"call take\(dataset\) first"):
        IntentRec(N_ITEMS, 6, **TINY).score(batch)
    untimed = replace(data, timestamps=None)
    with pytest.raises(RequestError, match="IntentRec needs timestamps"):
        _model().take(untimed)
    model = _model(position="order", short_term_window=None, fields={"action": "behaviour"})
    model.take(untimed)
    assert model.score(batch).isfinite()[:, 1:].all()
    arguments = dict(model.hparams)
    IntentRec.check(untimed, arguments)
    with pytest.raises(RequestError, match="timestamps"):
        IntentRec.check(untimed, {**arguments, "fields": FIELDS})
    with pytest.raises(RequestError, match="genre"):
        IntentRec.check(data, {**arguments, "fields": {"genre": "values:genre"}})
    nothings: list[dict[str, str] | None] = [None, {}]
    for nothing in nothings:
        with pytest.raises(RequestError, match=r"events: IntentRec has no fields .* intents: \[\]"):
            _model(fields=nothing)
        with pytest.raises(RequestError, match="has no fields"):
            IntentRec.check(data, {**arguments, "fields": nothing})
        assert not _model(fields=nothing, intents=()).predicts, "V0, as asked for"


def test_vectors_of_intents_are_the_mixture_at_every_event() -> None:
    data, model = event_data(), _model().eval()
    table = collect_intents(model, data, 10, np.arange(data.n_users))
    assert len(table.user) == len(data.items)
    found = model.read(events_of(model, data, 0))
    assert found.mixture is not None
    vectors = torch.from_numpy(table.vectors[table.user == 0][:10])
    torch.testing.assert_close(vectors, found.mixture[0].detach())
    with pytest.raises(RequestError, match="has no Z"):
        collect_intents(_model("v1").eval(), data, 10, np.arange(2))


def _planted_sessions() -> PreparedDataset:
    """Sessions with a hidden intent that sets behaviour, category and, among many, the item."""
    random = np.random.default_rng(0)
    shape, n_intents, per_intent = (300, 16), 6, 40
    opens = random.random(shape) < 0.15
    intent = random.integers(n_intents, size=shape)
    for step in range(1, shape[1]):
        intent[:, step] = np.where(opens[:, step], intent[:, step], intent[:, step - 1])
    items = 1 + intent * per_intent + random.integers(per_intent, size=shape)
    stray = random.integers(1, n_intents * per_intent + 1, size=shape)
    items = np.where(random.random(shape) < 0.15, stray, items)
    noise = random.integers(3, size=shape)
    actions = np.where(random.random(shape) < 0.85, intent % 3, noise)
    times = np.where(opens, 20_000, random.integers(5, 300, size=shape)).cumsum(1)
    data = build_dataset("sessions", items.tolist(), n_intents * per_intent)
    category = torch.arange(data.n_items, dtype=torch.int32) // per_intent + 1
    truth = torch.from_numpy(intent.ravel())
    return replace(
        data,
        timestamps=torch.from_numpy(times.ravel()),
        actions=torch.from_numpy(actions.ravel()).to(torch.int16),
        features=data.features | {"item.category.values": category, "truth.intent": truth},
    )


@pytest.mark.slow
def test_planted_intents_are_found() -> None:
    """Property 15, but for items: whether they gain is for a study to say, over seeds."""
    data = _planted_sessions()
    module = SequenceDataModule(data, window=16, batch_size=64, mask_history=False)
    seed_everything(0, verbose=False)
    model = IntentRec(
        data.n_items,
        data.n_users,
        window=16,
        fields={"action": "behaviour", "category": "value:category:6"},
        short_term_window=3000.0,
        item_width=32,
        width=32,
        blocks=1,
        learning_rate=3e-3,
    )
    quiet_trainer(20).fit(model, module)
    quiet_trainer(1).test(model, module, verbose=False)
    found = model.intent_metrics
    for intent in ("action", "category"):
        assert found[f"{intent}/accuracy"] > found[f"{intent}/accuracy_majority"] + 0.3
    table = collect_intents(model.eval(), data, 16, np.arange(data.n_users))
    planted = table.planted()
    assert planted is not None
    vectors = torch.from_numpy(table.vectors)
    clusters = KMeans(int(planted.max()) + 1, vectors.shape[1]).fit(vectors)
    assert nmi(clusters.numpy(), planted) > 0.5
