"""The study of item accuracy by whether intents were right, against one query at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from intentbench.metrics.formulas import compute_metric
from intentbench.models.events import EventRecommender
from intentbench.results.store import load_ranks
from intentbench.runner.recommend import load_trained
from tests.studies.scripts import load_script
from tests.trials import train_rows

script = load_script("intent_errors")
SMALL: dict[str, Any] = {
    "method": "intentrec", "width": 16, "item_width": 8, "short_width": 8, "intent_width": 8,
    "blocks": 1, "fields": {"action": "behaviour", "category": "values:category:3"},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two finished trials by label."""
    models = {"v1": {**SMALL, "hierarchical": False}, "v0": {**SMALL, "intents": []}}
    return train_rows(tmp_path_factory.mktemp("errors"), models, max_epochs=2)


def test_hits_against_one_query_at_a_time(runs: dict[str, Path]) -> None:
    model, data = load_trained(runs["v1"] / "best.ckpt", None)
    assert isinstance(model, EventRecommender)
    places, hits = script.find_hits(model, data)
    found = {tuple(place): row for row, place in enumerate(places.tolist())}
    action, category = model.predicted(model.known(torch.device("cpu")))
    offsets = data.dataset.offsets
    counts = {name: set(values.tolist()) for name, values in hits.items()}
    assert counts["action"] == {0, 1}
    assert {0, 1} <= counts["category"]
    for batch in data.test_dataloader():
        with torch.no_grad():
            shares = model.heads.distributions(model.reading(batch)[0].logits)
        for row in range(0, len(batch.users), 5):
            user, key = int(batch.users[row]), int(batch.key[row])
            place = found[user, key]
            label = int(action.labels[offsets[user] + key])
            assert hits["action"][place] == int(shares[0][row].argmax() == label)
            of_item = labels_of(category.labels[int(batch.target[row])])
            best = int(shares[1][row].argmax())
            assert hits["category"][place] == (int(best in of_item) if of_item else -1)


def labels_of(labels: torch.Tensor) -> set[int]:
    """The labels that a multi-hot row has."""
    return {number for number, held in enumerate(labels.tolist()) if held}


def test_the_split_is_of_the_stored_ranks(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = script.study(runs["v1"], None, "ndcg@10")
    whole = compute_metric("ndcg@10", load_ranks(runs["v1"])["rank"])
    for one in found.values():
        weights = one.share, 1 - one.share
        mean = sum(w * side[0] for w, side in zip(weights, (one.right, one.wrong), strict=True))
        if one.queries == len(whole):
            assert mean == pytest.approx(whole.mean())
    assert found["action"].queries == len(whole)
    monkeypatch.setattr("sys.argv", ["x", str(runs["v1"])])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["action", "category"]
    assert float(lines[2].split()[2]) == pytest.approx(found["action"].share, abs=1e-4)


def test_a_split_leaves_out_what_has_no_label() -> None:
    hit, metric = np.array([1, -1, 0, 1, 0]), np.array([1.0, 9.0, 0.0, 0.5, 0.25])
    one = script.split_metric(hit, metric)
    assert (one.queries, one.share) == (4, 0.5)
    assert one.right == pytest.approx((0.75, 0.25))
    assert one.wrong == pytest.approx((0.125, 0.125))


def test_a_method_without_predictions_is_refused(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs["v0"])])
    with pytest.raises(SystemExit, match="predicts no intents"):
        script.main()
