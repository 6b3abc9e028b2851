"""The study of IntentRec's predictions, against slow readings and what must come out."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.events import IntentLabels, build_events
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD
from intentbench.models.intentrec import IntentRec
from tests.studies.scripts import load_script
from tests.trials import train_rows

FIELDS = {"action": "behaviour", "category": "value:category:16"}
SHAPE: dict[str, Any] = {
    "window": 12,
    "fields": FIELDS,
    "item_width": 16,
    "intent_width": 8,
    "short_width": 8,
    "width": 16,
    "blocks": 1,
    "short_term_window": 3600.0,
}


script = load_script("intentrec_use")


@pytest.fixture(scope="module")
def data() -> SequenceDataModule:
    dataset: PreparedDataset = load_prepared(prepare("synthetic-tiny"))
    return SequenceDataModule(dataset, window=12, evaluation_batch_size=24)


def _build(data: SequenceDataModule, **arguments: Any) -> IntentRec:
    """An untrained method whose weights are large enough for predictions to matter."""
    torch.manual_seed(0)
    model = IntentRec(data.n_items, data.n_users, **{**SHAPE, **arguments})
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.5)
    model.take(data.dataset)
    return model.eval()


def _category(data: SequenceDataModule) -> tuple[Any, tuple[str, ...]]:
    """The category of each item as the script finds it, and its names."""
    table = build_events(data.dataset, FIELDS)
    return script.item_labels(table.intents[1], table, data.n_items), table.intents[1].names


def test_labels_that_items_decide_are_found_and_others_not(data: SequenceDataModule) -> None:
    table = build_events(data.dataset, FIELDS)
    action, category = table.intents
    assert script.item_labels(action, table, data.n_items) is None  # an item is viewed and bought
    found = script.item_labels(category, table, data.n_items)
    for event, item in enumerate(table.items.tolist()):
        label = int(category.labels[event])
        wanted = [] if label < 0 else [label]
        assert label < 0 or np.flatnonzero(found[item]).tolist() == wanted
    held = torch.tensor([[False, False], [True, False], [True, True]])
    several = IntentLabels("genre", "multi", ("a", "b"), held, torch.zeros(0))
    assert script.item_labels(several, table, 2).tolist() == held.tolist()


def test_agreement_against_a_count() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((9, 4)) < 0.4
    predicted, first = rng.integers(0, 4, 50), rng.integers(1, 9, 50)
    found = script.measure_agreement(predicted, first, labels)
    own = [labels[item, label] for item, label in zip(first, predicted, strict=True)]
    other = [labels[item, label] for label in predicted for item in first]
    assert found["share"] == pytest.approx(np.mean(own))
    assert found["of other queries"] == pytest.approx(np.mean(other))
    assert found["difference"][0] == pytest.approx(np.mean(own) - np.mean(other))


def test_attention_of_even_and_of_certain_weights() -> None:
    lengths = np.array([5, 1, 2, 9, 3, 7, 8, 4])
    even = script.measure_attention(np.full((8, 2), 0.5, np.float32), lengths, ("a", "b"))
    assert even["all"]["entropy"] == pytest.approx(1)
    certain = np.zeros((8, 2), np.float32)
    certain[np.arange(8), (lengths > 4).astype(int)] = 1
    found = script.measure_attention(certain, lengths, ("a", "b"))
    assert found["all"]["primary"] == {"a": 0.5, "b": 0.5}
    assert found["all"]["entropy"] == pytest.approx(0, abs=1e-6)
    assert list(found)[1:] == [
        "quarter 1 (1-2)",
        "quarter 2 (3-4)",
        "quarter 3 (5-7)",
        "quarter 4 (8-9)",
    ]
    assert [cell["mean weight"]["b"] for cell in found.values()][1:] == [0, 0, 1, 1]


def test_planted_clusters_are_found_with_their_labels() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(script.CLUSTERS), 30)
    centres = 20 * rng.normal(size=(script.CLUSTERS, 6))
    mixture = (centres[label] + rng.normal(size=(len(label), 6))).astype(np.float32)
    unknown = np.where(label < 5, label, -1)
    noise = rng.integers(0, 10, len(label))
    names = tuple(f"n{number}" for number in range(script.CLUSTERS))
    labels = {"planted": label, "unknown": unknown, "noise": noise}
    found = script.measure_clusters(mixture, labels, {"planted": names})
    assert found["silhouette"] > 0.8
    assert found["nmi"]["planted"] == found["nmi"]["unknown"] == pytest.approx(1)
    assert found["nmi"]["noise"] < 0.2
    typical = [cell["typical"] for cell in found["clusters"]]
    assert sorted(one[0][0] for one in typical) == sorted(f"planted {name}" for name in names)
    assert all(one[0][1:] == [1, pytest.approx(script.CLUSTERS)] for one in typical)


def test_telling_what_is_predicted_for_certain_changes_nothing(data: SequenceDataModule) -> None:
    model = _build(data)
    with torch.no_grad():
        layer = cast("nn.Linear", model.heads.layers[1])
        layer.weight.zero_()
        layer.bias.fill_(-200)[3] = 200
        batch = next(iter(data.test_dataloader()))
        plain = model.encode(batch)
        with script.told(model.mixture, batch, 1, 3):
            same = model.encode(batch)
        with script.told(model.mixture, batch, 1, 4):
            other = model.encode(batch)
        assert torch.equal(plain, same)
        assert not torch.isclose(plain, other).all(1).any()
        assert torch.equal(plain, model.encode(batch))  # nothing stays behind


def test_only_the_last_input_is_told(data: SequenceDataModule) -> None:
    model = _build(data)
    heard: list[torch.Tensor] = []
    assert model.mixture is not None
    batch = next(iter(data.test_dataloader()))
    handle = model.mixture.register_forward_hook(lambda _, given, __: heard.append(given[0][1]))
    with torch.no_grad():
        model.encode(batch)
        groups, heard[:] = [*heard], []
        handle.remove()
        with script.told(model.mixture, batch, 1, 4):
            handle = model.mixture.register_forward_hook(
                lambda _, given, __: heard.append(given[0][1])
            )
            model.encode(batch)
    handle.remove()
    for (start, stop, width), plain, told in zip(batch.groups, groups, heard, strict=True):
        last = (batch.lengths[start:stop] - 1).clamp(min=0)
        changed = torch.arange(width) == last[:, None]
        assert torch.equal(plain[~changed], told[~changed])
        assert (told[changed].argmax(-1) == 4).all()
        assert (told[changed].sum(-1) == 1).all()


def test_steering_against_one_query_at_a_time(data: SequenceDataModule) -> None:
    model = _build(data)
    labels, names = _category(data)
    found = script.measure_steering(model, model.mixture, data, 1, labels, names)
    steered = [names.index(name) for name in found]
    times = labels.sum(0)
    assert [times[label] for label in steered] == sorted(times[times > 0], reverse=True)
    lone = SequenceDataModule(data.dataset, window=12, evaluation_batch_size=1)
    share: dict[tuple[int | None, int], list[float]] = {}
    with torch.no_grad():
        for batch in lone.test_dataloader():
            for which in (None, *steered):
                if which is None:
                    query = model.encode(batch)[0]
                else:
                    with script.told(model.mixture, batch, 1, which):
                        query = model.encode(batch)[0]
                scores = model.item_table() @ query
                scores[[PAD, *batch.masked[0].tolist()]] = -torch.inf
                first = scores.argsort(descending=True)[: script.LISTED].numpy()
                for label in steered:
                    share.setdefault((which, label), []).append(labels[first, label].mean())
    for label in steered:
        cell = found[names[label]]
        others = [np.mean(share[other, label]) for other in steered if other != label]
        assert cell["as predicted"] == pytest.approx(np.mean(share[None, label]))
        assert cell["told"] == pytest.approx(np.mean(share[label, label]))
        assert cell["told others"] == pytest.approx(np.mean(others))
        assert cell["difference"][0] == pytest.approx(cell["told"] - cell["told others"])


# The script -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished trials by label."""
    small = {**SHAPE, "method": "intentrec"}
    del small["window"]
    models = {
        "popularity": {},
        "v0": {**small, "intents": []},
        "v1": {**small, "hierarchical": False, "short_term_window": None},
        "v3": small,
    }
    return train_rows(tmp_path_factory.mktemp("use"), models, max_epochs=2)


def _call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["intentrec_use.py", *map(str, arguments)])
    script.main()


def test_the_script_prints_and_writes_all_of_a_trial(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "use.json"
    _call(monkeypatch, runs["v3"], "--users", "40", "--out", out)
    found = json.loads(out.read_text())
    assert found["queries"] == 64
    assert list(found["agreement"]) == list(found["steering"]) == ["category"]
    assert sum(cell["queries"] for cell in found["clusters"]["clusters"]) == 40
    assert {"predicted action", "next planted"} < set(found["clusters"]["nmi"])
    shown = capsys.readouterr().out
    assert f"{found['agreement']['category']['share']:.4f}" in shown
    for heading in ("attention, all", "clusters of Z", "steering by category"):
        assert f"\n{heading}" in shown


def test_without_a_mixture_agreement_is_measured_alone(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "use.json"
    _call(monkeypatch, runs["v1"], "--out", out)
    found = json.loads(out.read_text())
    assert set(found) == {"run", "queries", "agreement", "steering"}
    assert found["steering"] == {}
    assert list(found["agreement"]) == ["category"]


@pytest.mark.parametrize(
    ("label", "words"),
    [("popularity", "a trial of Popularity, not of IntentRec"), ("v0", "predicts no intents")],
)
def test_other_trials_are_refused_in_a_line(
    label: str, words: str, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=words):
        _call(monkeypatch, runs[label])
