"""IGR-SR: what its specification says must hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.subject import quiet_trainer
from intentbench.models import load_method
from intentbench.models.igr_sr import IGRSR
from intentbench.models.sasrec import SASRec
from intentbench.nn.deliberation import draw_rounds
from intentbench.nn.info_nce import info_nce
from tests.models.idclrec_reference import data_module, first_batch

ENCODERS: dict[str, dict[str, Any]] = {
    "sasrec": {"width": 12, "blocks": 2, "heads": 2, "encoder": "bert"},
    "gru4rec": {"width": 12, "hidden": 9},
    "bert4rec": {"width": 12, "blocks": 2},
}
SHAPE: dict[str, Any] = {"window": 6, "width": 16, "num_prefix": 2, "num_intents": 3}
NONE: dict[str, Any] = {"fusion": "none", "lambda_icr": 0.0}

SWITCHES: list[dict[str, Any]] = [
    {},
    {"encoder": "gru4rec"},
    {"encoder": "bert4rec"},
    {"encoder": "sasrec", "encoder_arguments": {"width": 12, "encoder": "sasrec"}},
    {"layout": "all"},
    {"layout": "all", "mask": "drop", "encoder": "gru4rec"},
    {"layout": "all", "encoder": "bert4rec", "fusion": "add"},
    {"layout": "all", "intents": "free"},
    {"mask": "drop", "num_prefix": 0},
    {"fusion": "add"},
    {"fusion": "concat"},
    {"intents": "free"},
    {"lambda_icr": 0.0},
    {"freeze_encoder": False},
]


def _build(data: SequenceDataModule, **arguments: Any) -> IGRSR:
    """A method in float64, with weights large enough to tell positions apart."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {**SHAPE, "dropout": 0.0, "layout": data.layout, **arguments}
    settings.setdefault("encoder_arguments", ENCODERS[settings.get("encoder", "sasrec")])
    model = IGRSR(10, data.n_users, **settings).double()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
            if name.endswith("items.weight"):
                parameter.data[0] = 0
    model.prepare(data.training())
    return model


def _data(switch: dict[str, Any] | None = None, **options: Any) -> SequenceDataModule:
    return data_module(layout=(switch or {}).get("layout", "prefix"), **options)


def _train(model: Any, data: SequenceDataModule, steps: int) -> list[float]:
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(steps):
        total = model.loss(first_batch(data))["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    return values


def _slow_state(model: IGRSR, items: list[int], kept: Tensor) -> Tensor:
    """h of one row alone, its intents masked by `kept` (m,)."""
    row, length = torch.tensor([items]), torch.tensor([len(items)])
    intents = model.project(model.distiller(model.reader, row, length))
    chosen = intents[:, kept] if model.mask == "drop" else intents * kept[:, None]
    states: Tensor = model.reasoner(row, chosen).states
    return states[0, -1]


@pytest.mark.parametrize("mask", ["zero", "drop"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_loss_equals_one_computed_row_by_row(encoder: str, mask: str) -> None:
    data = _data()
    model = _build(data, encoder=encoder, mask=mask, lambda_icr=0.4, temperature=0.3).eval()
    batch = first_batch(data)
    torch.manual_seed(5)
    found = model.loss(batch)
    torch.manual_seed(5)
    rounds = draw_rounds(len(batch.users), 3, 0.2, torch.device("cpu"))
    rows = [row[:n].tolist() for row, n in zip(batch.items, batch.lengths, strict=True)]
    states, first, second = (
        torch.stack([_slow_state(model, row, kept) for row, kept in zip(rows, each, strict=True)])
        for each in rounds
    )
    scores = states @ model.item_table()[1:].T
    wanted = cross_entropy(scores, batch.labels - 1)
    torch.testing.assert_close(found["recommendation"], wanted)
    views, count, terms = torch.cat([first, second]), len(rows), []
    for a in range(2 * count):
        positive = cosine_similarity(views[a], views[(a + count) % (2 * count)], dim=0) / 0.3
        rivals = [
            cosine_similarity(views[a], views[b], dim=0) / 0.3
            for b in range(2 * count)
            if batch.users[a % count] != batch.users[b % count]
        ]
        terms.append(torch.stack([positive, *rivals]).logsumexp(0) - positive)
    consistency = torch.stack(terms).mean()
    torch.testing.assert_close(found["consistency"], consistency)
    torch.testing.assert_close(found["total"], wanted + 0.4 * consistency)
    variance = states.var(0, correction=0).mean()
    torch.testing.assert_close(found["state_variance"], variance)


def test_frozen_encoder_stays_as_it_was() -> None:
    data = _data()
    model = _build(data)
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    quiet_trainer(3).fit(model, data)
    assert not model.base.training
    assert all(value.equal(before[name]) for name, value in model.base.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.base.parameters())
    groups = model.configure_optimizers().param_groups
    optimised = {id(parameter) for group in groups for parameter in group["params"]}
    assert not optimised & {id(parameter) for parameter in model.base.parameters()}
    assert optimised == {id(p) for p in model.parameters() if p.requires_grad}
    tokens = list(model.distiller.parameters())
    assert sum(p.numel() for p in tokens) == (2 + 3) * 12
    assert all(p.grad is not None and p.grad.any() for p in tokens)


def test_training_mode_leaves_the_encoder_alone() -> None:
    data = _data()
    arguments = {**ENCODERS["sasrec"], "dropout": 0.5}
    for frozen in (True, False):
        model = _build(data, encoder_arguments=arguments, freeze_encoder=frozen).train()
        batch = first_batch(data)
        found = [model.distiller(model.reader, batch.items, batch.lengths) for _ in range(2)]
        assert found[0].equal(found[1]) == frozen
        assert model.base.training != frozen


def test_unfrozen_encoder_learns() -> None:
    data = _data()
    model = _build(data, freeze_encoder=False)
    before = model.reader.table.detach().clone()
    _train(model, data, 2)
    assert not before.equal(model.reader.table)


def _other_events(batch: SequenceBatch, row: int, keep: int) -> SequenceBatch:
    """The batch with other items after the first `keep` of a row, its targets included."""
    items, targets = batch.items.clone(), batch.targets.clone()
    items[row, keep:] = torch.where(items[row, keep:] > 0, items[row, keep:] % 10 + 1, 0)
    targets[row, max(keep - 1, 0) :] = torch.where(targets[row, max(keep - 1, 0) :] > 0, 10, 0)
    return replace(batch, items=items, targets=targets)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_sample_does_not_see_its_target(encoder: str) -> None:
    """Layout "prefix": what predicts comes of the inputs; another target changes only its score."""
    data = _data()
    model = _build(data, encoder=encoder, lambda_icr=0.0).eval()
    batch = first_batch(data)
    other = replace(batch, labels=batch.labels % 10 + 1, targets=batch.targets * 0 + 1)
    scores = model.encode(batch) @ model.item_table()[1:].T
    for one in (batch, other):
        wanted = cross_entropy(scores, one.labels - 1)
        torch.testing.assert_close(model.loss(one)["total"], wanted)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_position_does_not_see_what_follows(encoder: str) -> None:
    """Layout "all": the loss up to t is the same whatever comes after t, the target included."""
    data = data_module(layout="all")
    model = _build(data, encoder=encoder, lambda_icr=0.0).eval()
    batch = first_batch(data)
    row = 0
    for keep in range(1, int(batch.lengths[row])):
        inside = (batch.rows == row) & (torch.arange(len(batch.rows)) < keep)
        some = replace(
            batch,
            select=batch.select[inside],
            rows=batch.rows[inside],
            labels=batch.labels[inside],
        )
        changed = _other_events(some, row, keep)
        assert not changed.items.equal(batch.items)
        found, wanted = model.loss(changed)["total"], model.loss(some)["total"]
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("switch", [s for s in SWITCHES if s.get("layout") == "all"])
def test_layout_all_scores_each_prefix_as_if_it_were_alone(switch: dict[str, Any]) -> None:
    whole = data_module(layout="all")
    model = _build(whole, **{**switch, "lambda_icr": 0.0}).eval()
    prefixes = first_batch(data_module(layout="prefix"))
    scores = model.encode(prefixes) @ model.item_table()[1:].T
    wanted = cross_entropy(scores, prefixes.labels - 1)
    torch.testing.assert_close(model.loss(first_batch(whole))["total"], wanted)


def test_layout_all_contrasts_the_last_positions() -> None:
    data = data_module(layout="all")
    model = _build(data).eval()
    batch = first_batch(data)
    torch.manual_seed(5)
    found = model.loss(batch)["consistency"]
    torch.manual_seed(5)
    rounds = draw_rounds(len(batch.users), 3, 0.2, torch.device("cpu"))
    views = []
    for each in rounds[1:]:
        states = []
        for row, n, kept in zip(batch.items, batch.lengths, each, strict=True):
            intents = model.project(model.distiller.everywhere(model.reader, row[None, :n]))
            states.append(model.reasoner(row[None, :n], intents * kept[:, None]).states[0, -1])
        views.append(torch.stack(states))
    torch.testing.assert_close(found, info_nce(views[0], views[1], 0.1, None, True))


def test_contrast_has_its_closed_forms() -> None:
    def contrast(first: Tensor, second: Tensor, temperature: float) -> float:
        return float(info_nce(first, second, temperature, torch.arange(len(first)), True))

    same = torch.ones(5, 4).double()
    assert contrast(same, same, 0.1) == pytest.approx(torch.tensor(9.0).log().item())
    apart = torch.eye(5).double()
    assert contrast(apart, apart, 0.01) == pytest.approx(0, abs=1e-12)
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 4).double()
    value = contrast(first, second, 0.1)
    assert contrast(second, first, 0.1) == pytest.approx(value)
    assert contrast(3 * first, second / 2, 0.1) == pytest.approx(value)


def test_weight_of_zero_is_no_contrast() -> None:
    data = _data()
    model = _build(data, lambda_icr=0.0, p_mask=0.9)
    state = torch.get_rng_state()
    terms = model.loss(first_batch(data))
    assert torch.get_rng_state().equal(state), "nothing is drawn"
    assert "consistency" not in terms
    losses = [_train(_build(data, lambda_icr=0.0, p_mask=p), data, 4) for p in (0.1, 0.9)]
    assert losses[0] == losses[1]
    counts = [len(_build(data, lambda_icr=w).state_dict()) for w in (0.0, 0.1)]
    assert counts[0] == counts[1], "the contrast has no weights"


def test_without_intents_it_is_sasrec() -> None:
    for layout in ("prefix", "all"):
        data = data_module(layout=layout)
        shape: dict[str, Any] = {"window": 6, "width": 16, "layout": layout, "dropout": 0.3}
        torch.manual_seed(0)
        base = SASRec(10, data.n_users, loss="ce", encoder="bert", heads=2, **shape)
        torch.manual_seed(0)
        model = IGRSR(10, data.n_users, **shape, **NONE)
        for name, weight in base.encoder.named_parameters():
            assert model.reasoner.encoder.get_parameter(name).equal(weight), name
        losses = []
        for method in (base, model):
            torch.manual_seed(1)
            losses.append(_train(method, data, 5))
        assert losses[0] == losses[1]
        batch = next(iter(data.test_dataloader()))
        assert base.eval().score(batch).equal(model.eval().score(batch))


def test_frozen_encoder_and_network_start_from_different_draws() -> None:
    arguments: dict[str, Any] = {"encoder": "bert", "width": 16, "heads": 2}
    model = IGRSR(10, 4, **SHAPE, encoder_arguments=arguments)
    assert not model.reader.table.equal(model.item_table())
    same = IGRSR(10, 4, **SHAPE, encoder_arguments=arguments, init_items="lid")
    assert same.reader.table.equal(same.item_table())


@pytest.mark.parametrize("switch", SWITCHES)
def test_padding_changes_nothing(switch: dict[str, Any]) -> None:
    narrow, wide = _data(switch), _data(switch, pad_to_window=True)
    model = _build(narrow, **switch).eval()
    losses = []
    for data in (narrow, wide):
        torch.manual_seed(1)
        losses.append(model.loss(first_batch(data)))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, atol=1e-9, rtol=0, msg=name)
    rows = [next(iter(data.test_dataloader())) for data in (narrow, wide)]
    torch.testing.assert_close(model.score(rows[0]), model.score(rows[1]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("switch", SWITCHES)
def test_loss_falls_and_parameters_take_gradients(switch: dict[str, Any]) -> None:
    data = _data(switch)
    model = _build(data, learning_rate=1e-2, **switch)
    values = _train(model, data, 20)
    assert sum(values[-3:]) < 0.9 * sum(values[:3])
    for name, parameter in model.named_parameters():
        if not name.startswith("base."):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("k", [0, 2])
def test_number_of_trained_weights(k: int) -> None:
    v, w, n, m, d_in = 10, 6, 2, 3, 12
    d = 16
    model = _build(_data(), num_prefix=k, blocks=n)
    attention = 4 * (d * d + d)
    feed_forward = (d * 4 * d + 4 * d) + (4 * d * d + d)
    layer = 2 * attention + feed_forward + 3 * 2 * d  # three norms
    projection = (d_in * 2 * d + 2 * d) + (2 * d * d + d) + 2 * d
    expected = (k + m) * d_in + projection + n * layer + (v + 1) * d + w * d + 2 * d
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_signs_are_logged() -> None:
    data = _data()
    trainer = quiet_trainer(1)
    trainer.fit(_build(data), data)
    names = {"recommendation", "consistency", "state_variance", "intent_cosine",
             "attention_entropy", "gradient_tokens", "gradient_prefix"}  # fmt: skip
    logged = trainer.callback_metrics
    assert {f"train/{name}" for name in names} <= logged.keys()
    assert 0 < float(logged["train/attention_entropy"]) <= 1
    assert all(float(logged[f"train/gradient_{name}"]) > 0 for name in ("tokens", "prefix"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_trained_weights_are_taken_over(encoder: str) -> None:
    torch.manual_seed(3)
    arguments = ENCODERS[encoder]
    longer: dict[str, Any] = {} if encoder == "gru4rec" else {"window": 9}
    trained = load_method(encoder)(10, 4, **arguments, **longer)
    model = IGRSR(10, 4, **SHAPE, encoder=encoder, encoder_arguments=arguments)
    drawn = model.distiller.tokens.detach() / model.reader.table[1:].std()
    model.load_encoder(trained.state_dict())
    for name, value in model.base.state_dict().items():
        assert value.equal(trained.state_dict()[name][: len(value)]), name
    torch.testing.assert_close(
        model.distiller.tokens.detach(), drawn * model.reader.table[1:].std()
    )
    assert all(f"base.{name}" in model.state_dict() for name in model.base.state_dict())
    other = load_method(encoder)(12, 4, **arguments, **longer)
    with pytest.raises(RequestError, match="the checkpoint has"):
        model.load_encoder(other.state_dict())
    if longer:
        short = load_method(encoder)(10, 4, **arguments, **{"window": 5})
        with pytest.raises(RequestError, match=r"positions\.weight"):
            model.load_encoder(short.state_dict())


def test_items_of_the_trained_encoder() -> None:
    arguments: dict[str, Any] = {"encoder": "bert", "width": 16, "heads": 2}
    model = IGRSR(10, 4, **SHAPE, encoder_arguments=arguments, init_items="lid")
    trained = SASRec(10, 4, 6, encoder="bert", width=16, heads=2)
    model.load_encoder(trained.state_dict())
    assert model.item_table().equal(trained.item_table())
    assert model.item_table().data_ptr() != model.reader.table.data_ptr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "popularity"}, "take sasrec, gru4rec or bert4rec"),
        ({"encoder": "duorec"}, "take sasrec, gru4rec or bert4rec"),
        ({"encoder": "sasrek"}, "unknown method"),
        ({"encoder_arguments": {"depth": 3}}, "takes no 'depth'"),
        ({"encoder_arguments": {"window": 3}}, "takes no 'window'"),
        ({"fusion": "none"}, "set lambda_icr to 0"),
        ({"fusion": "concat", "layout": "all"}, "set layout: prefix"),
        ({"fusion": "add", "mask": "drop"}, "needs fusion 'cross'"),
        ({"init_items": "lid", "width": 32}, "width is 32, that of the encoder 64"),
        ({"num_intents": 0}, "at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        IGRSR(10, 4, **arguments)


def test_one_intent_is_never_masked() -> None:
    with pytest.warns(UserWarning, match="one intent"):
        model = _build(_data(), num_intents=1, p_mask=0.9).eval()
    terms = model.loss(first_batch(_data()))
    assert "attention_entropy" not in terms
    states = model.encode(first_batch(_data()))
    groups = first_batch(_data()).users
    torch.testing.assert_close(terms["consistency"], info_nce(states, states, 0.1, groups, True))


@pytest.mark.parametrize("switch", SWITCHES)
def test_intents_are_those_of_each_prefix(switch: dict[str, Any]) -> None:
    rows, prefixes = first_batch(data_module(layout="all")), first_batch(data_module())
    model = _build(_data(switch), **switch).eval()
    with torch.no_grad():
        found = model.intents(rows)
        states = model.encode(prefixes)
    assert found.vectors.shape == found.states.shape == (len(rows.labels), 16)
    order = [
        int((prefixes.users == rows.users[row]).logical_and(prefixes.key == key).nonzero()[0, 0])
        for row, key in zip(rows.rows.tolist(), _keys(rows), strict=True)
    ]
    torch.testing.assert_close(found.states, states[order], atol=1e-9, rtol=0)
    if model.fusion == "cross":
        assert found.assignment is not None
        assert set(found.assignment.tolist()) <= {0, 1, 2}
    else:
        assert found.assignment is None
    if model.layout == "prefix" and not model.free:
        raw = model.distiller(model.reader, prefixes.items, prefixes.lengths)
        vectors = model.project(raw).detach().mean(1)
        torch.testing.assert_close(found.vectors, vectors[order], atol=1e-9, rtol=0)


def _keys(rows: SequenceBatch) -> list[int]:
    counts = torch.bincount(rows.rows)
    place = torch.cat([torch.arange(int(n)) - int(n) + 1 for n in counts])
    return [int(key) for key in rows.key[rows.rows] + place]


def test_without_intents_there_is_nothing_to_inspect() -> None:
    model = IGRSR(10, 4, **SHAPE, **NONE)
    with pytest.raises(RequestError, match="nothing to inspect"):
        model.intents(first_batch(data_module(layout="all")))


def test_a_run_that_goes_on_within_an_epoch_leaves_the_encoder_alone(tmp_path: Path) -> None:
    """Lightning then skips the beginning of the epoch, where a module is put in training mode."""

    class Modes(Callback):
        def __init__(self) -> None:
            self.seen: list[bool] = []

        def on_train_batch_start(self, trainer: object, model: Any, *_: object) -> None:
            self.seen.append(model.base.training)

    data, modes = _data(batch_size=2), Modes()
    half = quiet_trainer(1, max_steps=2, callbacks=[modes])
    half.fit(_build(data).float(), data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    rest = quiet_trainer(2, callbacks=[modes])
    rest.fit(_build(data).float(), data, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert rest.global_step > 4
    assert not any(modes.seen)
