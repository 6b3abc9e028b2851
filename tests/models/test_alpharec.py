"""AlphaRec: no IDs, users made of their training items, a softmax over cosines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from intentbench.contracts.data import build_dataset, change_held_out, planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models import alpharec
from intentbench.models.alpharec import AlphaRec
from intentbench.text.nodes import find_profiles
from tests.models.add_ons import TEXTS, build, dense_graph, first_batch, pairs, ready

SMALL: dict[str, Any] = {"width": 4, "layers": 2, "negatives": 3, **TEXTS}


def _inputs(dataset: PreparedDataset, texts: Tensor | None = None) -> Tensor:
    torch.manual_seed(0)
    model = AlphaRec(dataset.n_items, dataset.n_users, **SMALL)
    model.take(dataset)
    if texts is not None:
        model.profile_text = texts
    model.prepare(dataset.training())
    return model.inputs


def test_a_user_is_the_mean_of_the_training_items_each_once() -> None:
    sequences = [[1, 2, 1, 3, 4], [5, 5, 5, 2, 3], [4], [1, 1]]  # the last two are held out
    dataset = build_dataset("repeats", sequences, 6)
    texts = find_profiles("gaussian", dataset, 6)
    users, items = texts.split([4, 6])  # type: ignore[no-untyped-call]
    expected = [items[[0, 1]], items[[4]], items[[3]], items[[0]]]
    inputs = _inputs(dataset)
    torch.testing.assert_close(inputs[:4], torch.stack([rows.mean(0) for rows in expected]))
    assert inputs[4:].equal(items)
    others = torch.cat([users + 1, items])
    assert _inputs(dataset, others).equal(inputs), "texts of users are not read"


def test_held_out_items_are_no_part_of_a_user() -> None:
    dataset = planted_cycles()
    assert _inputs(change_held_out(dataset)).equal(_inputs(dataset))


def test_users_without_training_items_score_all_items_alike() -> None:
    dataset = build_dataset("empty", [[1, 2, 3, 4], []], 5)
    inputs = _inputs(dataset)
    assert inputs.isfinite().all()
    assert not inputs[1].any()


def test_parameters_depend_on_neither_users_nor_items() -> None:
    counts = {
        sum(p.numel() for p in AlphaRec(n_items, n_users, **SMALL).parameters())
        for n_items, n_users in ((5, 5), (5, 900), (700, 5))
    }
    assert counts == {6 * 3 + 3 + 3 * 4 + 4}
    wide = AlphaRec(5, 5, width=32, profile_width=1536)
    assert wide.tower[0].out_features == 768


def _expected_directions(model: AlphaRec) -> Tensor:
    dense = torch.from_numpy(dense_graph(pairs()))
    with torch.no_grad():
        layers = [model.tower(model.inputs).double()]
    for _ in range(2):
        layers.append(dense @ layers[-1])
    return torch.stack(layers).sum(0) / 3


def test_weights_are_xavier_uniform() -> None:
    model = AlphaRec(n_items=9, n_users=4, width=32, profile_width=128)
    for weight in (weight for weight in model.tower.parameters() if weight.ndim == 2):
        bound = (6 / sum(weight.shape)) ** 0.5  # torch's own is half of it and less here
        assert 0.95 * bound < weight.abs().max() <= bound


def test_scores_are_cosines_of_the_mean_of_layers() -> None:
    model = ready(AlphaRec, **SMALL).eval()
    e = _expected_directions(model)
    batch = next(iter(pairs().test_dataloader()))
    users, items = e[batch.users], e[model.n_users :]
    expected = cosine_similarity(users[:, None], items[None], dim=-1)
    found = model.score(batch)[:, 1:]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert found.abs().max() <= 1 + 1e-6


def test_loss_is_a_softmax_over_the_positive_and_the_negatives() -> None:
    model = ready(AlphaRec, temperature=0.4, l2=1e-3, **SMALL)
    batch = first_batch(pairs(batch_size=16))
    torch.manual_seed(5)
    terms = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    assert model.sampler is not None
    torch.manual_seed(5)
    negatives = model.sampler.sample(batch.users, 3)
    e = _expected_directions(model)
    losses = []
    for user, positive, drawn in zip(batch.users, batch.labels, negatives, strict=True):
        items = e[model.n_users - 1 + torch.cat([positive[None], drawn])]
        masses = (cosine_similarity(e[user][None], items) / 0.4).exp()
        losses.append(float(-(masses[0] / masses.sum()).log()))
    assert terms["softmax"] == pytest.approx(np.mean(losses), rel=1e-4)
    squares = sum(float(p.detach().square().sum()) for p in model.parameters())
    assert terms["l2"] == pytest.approx(1e-3 * squares, rel=1e-5)
    assert terms["total"] == pytest.approx(terms["softmax"] + terms["l2"], rel=1e-6)


def test_loss_where_all_are_alike_is_the_log_of_their_number() -> None:
    model = ready(AlphaRec, **{**SMALL, "negatives": 7})
    for layer in (model.tower[0], model.tower[2]):
        assert isinstance(layer, torch.nn.Linear)
        torch.nn.init.zeros_(layer.weight)
    softmax = model.loss(first_batch(pairs()))["softmax"]
    assert float(softmax.detach()) == pytest.approx(np.log(8), abs=1e-6)


def test_tables_are_made_anew_on_the_way_into_evaluation() -> None:
    model = ready(AlphaRec, **SMALL)
    before = model.user_table.clone()
    last = model.tower[2]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight)
    assert model.user_table.equal(before)
    model.eval()
    assert not model.user_table.equal(before)


def test_a_checkpoint_scores_without_texts_and_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pairs()
    model = build(AlphaRec, **SMALL)
    trainer = quiet_trainer(1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    monkeypatch.setattr(alpharec, "find_profiles", None)
    quiet_trainer(1).test(model, data, verbose=False)
    loaded = AlphaRec.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    batch = next(iter(data.test_dataloader()))
    assert loaded.score(batch).equal(model.score(batch))


def test_check_refuses_a_dataset_without_texts() -> None:
    data = planted_cycles()
    AlphaRec.check(data, TEXTS)
    with pytest.raises(RequestError, match="planted cycles"):
        AlphaRec.check(replace(data, folder=None), {**TEXTS, "text": "tfidf-svd"})


def test_loss_and_pass_without_the_training_events_say_what_is_missing() -> None:
    model = build(AlphaRec, **SMALL)
    with pytest.raises(RuntimeError, match="prepare"):
        model.loss(first_batch(pairs()))
    with pytest.raises(RuntimeError, match="prepare"):
        model.directions()
