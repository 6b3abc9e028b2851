"""Semantic only: cosines of profiles, as scikit-learn has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from datamodules.errors import RequestError
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models import semantic
from intentbench.models.semantic import Semantic
from intentbench.text.nodes import NodeTexts, find_profiles
from tests.models.add_ons import TEXTS, build, pairs, ready


def test_scores_are_cosines_of_profiles() -> None:
    model = ready(Semantic, **TEXTS)
    texts = find_profiles("gaussian", planted_cycles(), 6).double().numpy()
    expected = cosine_similarity(texts[: model.n_users], texts[model.n_users :])
    for batch in pairs().test_dataloader():
        scores = model.score(batch)
        np.testing.assert_allclose(scores[:, 1:], expected[batch.users], atol=1e-6)
        assert (scores[:, 0] == -torch.inf).all()


def test_nodes_without_a_text_score_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted_cycles()
    texts = find_profiles("gaussian", data, 6)
    texts[0] = texts[data.n_users] = 0  # user 0 and item 1
    monkeypatch.setattr(semantic, "find_profiles", lambda *_: NodeTexts(texts, texts).profile)
    model = ready(Semantic, **TEXTS)
    scores = model.user_table @ model.item_vectors.T
    assert not scores[0].any()
    assert not scores[:, 1].any()
    assert scores[1:, 2:].all()


def test_nothing_is_trained_and_the_seed_changes_nothing() -> None:
    first, second = (build(Semantic, seed, **TEXTS) for seed in (0, 1))
    for model in (first, second):
        quiet_trainer(2).fit(model, pairs())
    assert not [*first.parameters()]
    assert first.user_table.any()
    assert first.user_table.equal(second.user_table)
    assert first.item_vectors.equal(second.item_vectors)


def test_a_checkpoint_scores_without_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(Semantic, **TEXTS)
    trainer = quiet_trainer(1)
    trainer.fit(model, pairs())
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    monkeypatch.setattr(semantic, "find_profiles", None)
    quiet_trainer(1).test(model, pairs(), verbose=False)
    loaded = Semantic.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    batch = next(iter(pairs().test_dataloader()))
    assert loaded.score(batch).equal(model.score(batch))


def test_check_refuses_a_dataset_without_texts() -> None:
    Semantic.check(planted_cycles(), TEXTS)
    with pytest.raises(RequestError, match="planted cycles"):
        Semantic.check(planted_cycles(), {**TEXTS, "text": "tfidf-svd"})
