"""Measures of predicted intents against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    label_ranking_average_precision_score,
    log_loss,
    roc_auc_score,
)
from torch import Tensor

from intentbench.metrics.intent_prediction import (
    IntentScore,
    mean_auroc,
    multi_decisions,
    ranking_precision,
)

D = 6


def _single() -> tuple[Tensor, Tensor, Tensor]:
    """Shares, labels (5 never occurs, some are missing), labels before (some missing)."""
    torch.manual_seed(0)
    shares = torch.randn(80, D).softmax(-1)
    return shares, torch.randint(-1, D - 1, (80,)), torch.randint(-1, D, (80,))


def _multi() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shares = torch.randn(80, D).softmax(-1)
    truth, last = torch.rand(2, 80, D) < 0.3
    truth[:, 5] = False
    return shares, truth, last


def _score(single: bool, tied: Tensor | None = None, batch: int = 32) -> tuple[IntentScore, ...]:
    shares, truth, last = _single() if single else _multi()
    tied = torch.zeros(80, dtype=torch.bool) if tied is None else tied
    score = IntentScore(D, single)
    score.frequencies = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.1, 0.05])
    for start in range(0, 80, batch):
        part = slice(start, start + batch)
        score.update(shares[part], truth[part], last[part], tied[part])
    return (score,)


def test_single_labels() -> None:
    (score,) = _score(True)
    found = score.compute()
    shares, truth, last = _single()
    known = truth >= 0
    p, y, before = shares[known].double().numpy(), truth[known].numpy(), last[known].numpy()
    p /= p.sum(1, keepdims=True)
    occurs = np.unique(y)
    assert found["targets"] == len(y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert found["macro_f1"] == pytest.approx(
        f1_score(y, p.argmax(1), labels=occurs, average="macro", zero_division=0)
    )
    assert found["nll"] == pytest.approx(log_loss(y, p, labels=range(D)), rel=1e-5)
    areas = [roc_auc_score(y == label, p[:, label]) for label in occurs]
    assert found["auroc"] == pytest.approx(np.mean(areas), rel=1e-5)
    assert found["accuracy_majority"] == pytest.approx(accuracy_score(y, np.full(len(y), 1)))
    prior = np.tile([0.1, 0.3, 0.2, 0.25, 0.1, 0.05], (len(y), 1))
    assert found["nll_majority"] == pytest.approx(log_loss(y, prior, labels=range(D)), rel=1e-5)
    assert "nll_last" not in found, "a label repeated is no distribution"
    repeated = np.where(before >= 0, before, 1)  # nothing known before: the most frequent label
    assert found["accuracy_last"] == pytest.approx(accuracy_score(y, repeated))
    assert found["macro_f1_last"] == pytest.approx(
        f1_score(y, repeated, labels=occurs, average="macro", zero_division=0)
    )


def test_several_labels() -> None:
    (score,) = _score(False)
    found = score.compute()
    shares, truth, last = _multi()
    known = truth.any(1)
    p, y, before = shares[known].numpy(), truth[known].numpy(), last[known].numpy()
    frequencies = np.array([0.1, 0.3, 0.2, 0.25, 0.1, 0.05], dtype=np.float32)
    predictors = {"": p, "_last": (before + frequencies) / 2}
    for name, scores in predictors.items():
        order = np.argsort(-scores, 1, kind="stable")
        first = [y[row, best[0]] for row, best in enumerate(order)]
        recall = [y[row, best[:3]].sum() / y[row].sum() for row, best in enumerate(order)]
        assert found[f"hit@1{name}"] == pytest.approx(np.mean(first))
        assert found[f"recall@3{name}"] == pytest.approx(np.mean(recall))
        ranking = label_ranking_average_precision_score(y, scores)
        assert found[f"label_ranking_average_precision{name}"] == pytest.approx(ranking, rel=1e-5)
        each = [average_precision_score(y[:, c], scores[:, c]) for c in range(D) if y[:, c].any()]
        assert len(each) == D - 1
        assert found[f"average_precision{name}"] == pytest.approx(np.mean(each), rel=1e-5)
    assert found["hit@1_majority"] == pytest.approx(y[:, 1].mean())
    assert "nll" not in found


def test_batches_and_repeats_do_not_matter() -> None:
    (whole,), (parts,) = _score(True, batch=80), _score(True, batch=7)
    assert whole.compute() == parts.compute()
    parts.reset()
    parts.update(*_single(), torch.zeros(80, dtype=torch.bool))
    assert whole.compute() == parts.compute()


def test_untied_targets_apart() -> None:
    tied = torch.arange(80) % 3 == 0
    (score,) = _score(True, tied)
    shares, truth, last = _single()
    kept = (truth >= 0) & ~tied
    found, y = score.compute(), truth[kept]
    guesses = {
        "": shares[kept].argmax(1),
        "_majority": torch.ones_like(y),
        "_last": torch.where(last >= 0, last, 1)[kept],
    }
    for name, guess in guesses.items():
        expected = accuracy_score(y, guess)
        assert found[f"accuracy{name}_untied"] == pytest.approx(expected)
    prior = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.1, 0.05])
    assert found["nll_majority_untied"] == pytest.approx(float(-prior[y].log().mean()))
    assert not any(name.endswith("_untied") for name in _score(True)[0].compute())


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_ranking_precision_with_ties(levels: int) -> None:
    torch.manual_seed(0)
    scores = torch.randint(levels, (60, 9)) / levels
    truth = torch.rand(60, 9) < 0.3
    truth[~truth.any(1), 0] = True
    found = ranking_precision(scores, truth.float())
    expected = label_ranking_average_precision_score(truth.numpy(), scores.numpy())
    assert found == pytest.approx(expected, rel=1e-5)


def test_no_target_with_a_label_gives_nothing() -> None:
    score = IntentScore(3, True)
    nothing = torch.tensor([-1])
    score.update(torch.ones(1, 3) / 3, nothing, nothing, torch.tensor([False]))
    assert score.compute() == {}


def test_degenerate_labels() -> None:
    assert np.isnan(mean_auroc(torch.rand(3, 2), torch.tensor([[1, 0]] * 3)))
    perfect = multi_decisions(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.eye(2))
    assert set(perfect.values()) == {1.0}
