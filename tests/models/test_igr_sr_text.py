"""IGR-SR on texts: it is IGR-SR whose frozen encoder is SASRec on texts."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from datamodules.errors import RequestError
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.igr_sr import IGRSR
from intentbench.models.igr_sr_text import IGRSRText
from intentbench.models.sasrec_text import SASRecText
from intentbench.spec import load_spec
from tests.models.idclrec_reference import data_module, first_batch

SHAPE: dict[str, Any] = {"window": 6, "width": 16, "num_prefix": 2, "num_intents": 3}
ENCODER: dict[str, Any] = {"width": 12, "blocks": 2, "heads": 2}
TEXTS: dict[str, Any] = {"text": "gaussian", "profile_width": 5}


def _trained() -> SASRecText:
    """An encoder whose map has been trained a little."""
    torch.manual_seed(1)
    data = data_module()
    model = SASRecText(10, data.n_users, 6, **ENCODER, **TEXTS, learning_rate=1e-2)
    quiet_trainer(2).fit(model, data)
    return model


def _model(**arguments: Any) -> IGRSRText:
    torch.manual_seed(0)
    settings = {**SHAPE, "encoder_arguments": {**ENCODER, **TEXTS}, **arguments}
    return IGRSRText(10, data_module().n_users, **settings)


@pytest.mark.parametrize("layout", ["prefix", "all"])
def test_it_is_igr_sr_that_reads_a_table_made_of_texts(layout: str) -> None:
    data = data_module(layout=layout)
    model = _model(layout=layout)
    model.load_encoder(_trained().state_dict())
    model.take(data.dataset)
    arguments: dict[str, Any] = {**SHAPE, "layout": layout}
    twin = IGRSR(10, data.n_users, **arguments, encoder_arguments={**ENCODER, "encoder": "bert"})
    state, items = model.state_dict(), "base.encoder.items."
    table = state[f"{items}features"] @ state[f"{items}project.weight"].T
    names = twin.state_dict().keys() - {f"{items}weight"}
    twin.load_state_dict({**{name: state[name] for name in names}, f"{items}weight": table})
    losses = []
    for method in (model.double().eval(), twin.double().eval()):
        torch.manual_seed(2)
        losses.append(method.loss(first_batch(data)))
    for name, value in losses[1].items():
        torch.testing.assert_close(losses[0][name], value, atol=1e-6, rtol=0, msg=name)
    batch = next(iter(data.test_dataloader()))
    torch.testing.assert_close(model.score(batch), twin.score(batch), atol=1e-6, rtol=0)


def test_map_texts_and_encoder_are_frozen_and_tokens_learn() -> None:
    data, model = data_module(), _model()
    model.load_encoder(_trained().state_dict())
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    tokens = model.distiller.tokens.detach().clone()
    quiet_trainer(2).fit(model, data)
    assert all(value.equal(before[name]) for name, value in model.base.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.base.parameters())
    assert not model.base.training
    assert not model.distiller.tokens.equal(tokens)
    for parameter in model.distiller.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_texts_stay_frozen_where_the_encoder_does_not() -> None:
    data, model = data_module(), _model(freeze_encoder=False)
    model.load_encoder(_trained().state_dict())
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    quiet_trainer(1).fit(model, data)
    after = model.base.state_dict()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert {"encoder.items.project.weight", "encoder.positions.weight"} <= changed
    assert "encoder.items.features" not in changed


def test_tokens_have_the_spread_of_the_items_that_are_read() -> None:
    model, trained = _model(), _trained()
    spreads = [float(model.reader.table.detach()[1:].std())]
    drawn = model.distiller.tokens.detach() / spreads[0]
    model.load_encoder(trained.state_dict())
    spreads.append(float(model.reader.table.detach()[1:].std()))
    assert spreads[1] == pytest.approx(float(trained.item_table().detach()[1:].std()))
    assert spreads[0] != pytest.approx(spreads[1], rel=0.01)
    torch.testing.assert_close(model.distiller.tokens.detach(), drawn * spreads[1])


def test_other_texts_give_other_intents() -> None:
    data = data_module()
    batch = first_batch(data)
    found = []
    for source in ("gaussian", "shuffled:gaussian"):
        model = _model(encoder_arguments={**ENCODER, **TEXTS, "text": source})
        model.take(data.dataset)
        found.append(model.distiller(model.reader, batch.items, batch.lengths))
    assert not torch.allclose(*found)


def test_a_dataset_without_the_texts_is_refused() -> None:
    dataset = data_module().dataset
    for given in (None, {"profile_width": 7}):  # TF-IDF of texts that it does not have
        with pytest.raises(RequestError):
            IGRSRText.check(dataset, {"encoder_arguments": given})
    IGRSRText.check(dataset, {"encoder_arguments": {"text": "gaussian"}})


def test_it_starts_from_a_row_on_texts_alone(tmp_path: Path) -> None:
    rows: dict[str, Any] = {
        "texts": {"method": "sasrec_text", "width": 16},
        "ids": {"method": "sasrec", "loss": "ce", "encoder": "bert", "heads": 2},
        "above": {"method": "igr_sr_text", "pretrained": "texts"},
    }
    path = tmp_path / "spec.yaml"
    raw = {"name": "x", "datasets": ["synthetic-tiny"], "seeds": [0], "models": rows}
    path.write_text(yaml.safe_dump(raw))
    above = {entrant.label: entrant for entrant in load_spec(path).entrants}["above"]
    arguments = above.arguments_on("synthetic-tiny")
    assert arguments["encoder"] == "sasrec_text"
    assert arguments["encoder_arguments"]["text"] == "tfidf-svd"
    assert arguments["encoder_arguments"]["width"] == 16
    rows["above"]["pretrained"] = "ids"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(RequestError, match="only SASRecText"):
        load_spec(path)
