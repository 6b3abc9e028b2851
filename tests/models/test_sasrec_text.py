"""SASRec on texts: SASRec whose item table is a linear map of frozen features."""

from typing import Any

import pytest
import torch

from datamodules.errors import RequestError
from datamodules.types import PAD
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.sasrec import SASRec
from intentbench.models.sasrec_text import SASRecText
from intentbench.text.nodes import find_profiles
from tests.models.idclrec_reference import data_module, first_batch

SHAPE: dict[str, Any] = {"window": 6, "width": 16, "blocks": 1, "dropout": 0.0}
TEXTS: dict[str, Any] = {"text": "gaussian", "profile_width": 5}


def _model(**arguments: Any) -> SASRecText:
    torch.manual_seed(0)
    data = data_module()
    model = SASRecText(10, data.n_users, **{**SHAPE, **TEXTS, **arguments})
    model.take(data.dataset)
    return model.double()


def _with_ids(model: SASRecText, encoder: str, layout: str) -> SASRec:
    """The same SASRec, but that a table of IDs holds what the map makes of the features."""
    settings: dict[str, Any] = {**SHAPE, "encoder": encoder, "layout": layout, "heads": 2}
    twin = SASRec(10, model.n_users, loss="ce", **settings).double()
    state = model.state_dict()
    features, project = state["encoder.items.features"], state["encoder.items.project.weight"]
    names = twin.state_dict().keys() - {"encoder.items.weight"}
    twin.load_state_dict(
        {**{name: state[name] for name in names}, "encoder.items.weight": features @ project.T}
    )
    return twin


@pytest.mark.parametrize("layout", ["prefix", "all"])
@pytest.mark.parametrize("encoder", ["bert", "sasrec"])
def test_it_is_sasrec_with_that_item_table(encoder: Any, layout: Any) -> None:
    data = data_module(layout=layout)
    model = _model(encoder=encoder, layout=layout)
    twin = _with_ids(model, encoder, layout)
    batch = next(iter(data.test_dataloader()))
    torch.testing.assert_close(model.score(batch), twin.score(batch))
    found, wanted = (each.loss(first_batch(data))["total"] for each in (model, twin))
    torch.testing.assert_close(found, wanted)
    found.backward()  # type: ignore[no-untyped-call]
    wanted.backward()  # type: ignore[no-untyped-call]
    table = twin.encoder.items.weight.grad
    assert table is not None
    # PAD's row takes part in the softmax of neither, nor does padding in attention
    chained = table[PAD + 1 :].T @ model.texts.features[PAD + 1 :]
    torch.testing.assert_close(model.texts.project.weight.grad, chained)


def test_features_are_those_of_items_scaled_by_one_number() -> None:
    model = _model()
    dataset = data_module().dataset
    wanted = find_profiles("gaussian", dataset, 5)[model.n_users :].double()
    ratio = model.texts.features[1:] / wanted
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))
    assert float(model.texts.features[1:].square().mean()) == pytest.approx(1)
    assert not model.texts.weight[PAD].any()
    shuffled = _model(text="shuffled:gaussian")
    assert not shuffled.texts.features.equal(model.texts.features)


@pytest.mark.parametrize("encoder", ["bert", "sasrec"])
def test_items_start_with_the_spread_of_ids(encoder: Any) -> None:
    """1000 items and 64 dimensions: the estimates are within 5 % of each other."""
    settings: dict[str, Any] = {"n_items": 1000, "n_users": 1, "encoder": encoder}
    torch.manual_seed(0)
    ids = SASRec(**settings).item_table()[1:].std()
    texts = SASRecText(**settings, **{**TEXTS, "profile_width": 64}).item_table()[1:].std()
    torch.testing.assert_close(texts, ids, rtol=0.05, atol=0)


def test_texts_are_frozen_and_the_map_learns() -> None:
    model, data = _model().float(), data_module()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quiet_trainer(2).fit(model, data)
    after = model.state_dict()
    assert after["encoder.items.features"].equal(before["encoder.items.features"])
    assert not after["encoder.items.project.weight"].equal(before["encoder.items.project.weight"])
    assert "encoder.items.features" not in dict(model.named_parameters())


def test_number_of_weights_does_not_depend_on_the_catalogue() -> None:
    few, many = (SASRecText(v, 4, **SHAPE, **TEXTS) for v in (10, 1000))
    counts = [sum(p.numel() for p in model.parameters()) for model in (few, many)]
    plain = SASRec(10, 4, **SHAPE, encoder="bert", heads=2)
    ids = sum(p.numel() for p in plain.parameters())
    assert counts[0] == counts[1] == ids - 11 * 16 + 5 * 16


@pytest.mark.parametrize("source", ["tfidf-svd", "no/such/folder"])
def test_a_dataset_without_these_texts_is_refused(source: str) -> None:
    dataset = data_module().dataset
    with pytest.raises(RequestError) as caught:
        SASRecText.check(dataset, {"text": source, "profile_width": 128})
    assert "\n" not in str(caught.value)
    SASRecText.check(dataset, TEXTS)
