"""The study of IGR-SR's intents, against slow readings and what must come out by construction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD
from intentbench.contracts.subject import quiet_trainer
from intentbench.metrics.formulas import compute_metric
from intentbench.models.igr_sr import IGRSR
from tests.studies.scripts import load_script
from tests.trials import train_rows

linear, script = load_script("linear_probes"), load_script("intent_probes")

SHAPE: dict[str, Any] = {
    "window": 12,
    "width": 16,
    "blocks": 2,
    "num_prefix": 1,
    "num_intents": 3,
    "learning_rate": 5e-3,
    "encoder_arguments": {"width": 12, "blocks": 1, "encoder": "bert", "heads": 2},
}
SWITCHES: list[dict[str, Any]] = [
    {},
    {"layout": "all"},
    {"fusion": "add"},
    {"fusion": "concat"},
    {"encoder": "gru4rec", "encoder_arguments": {"width": 12}},
    {"encoder": "bert4rec", "encoder_arguments": {"width": 12}, "mask": "drop"},
]


@pytest.fixture(scope="module")
def dataset() -> PreparedDataset:
    return load_prepared(prepare("synthetic-tiny"))


def _data(dataset: PreparedDataset, layout: Any = "prefix") -> SequenceDataModule:
    return SequenceDataModule(dataset, layout=layout, window=12, evaluation_batch_size=24)


def _build(data: SequenceDataModule, **arguments: Any) -> IGRSR:
    """An untrained method, with weights large enough to tell positions and intents apart."""
    torch.manual_seed(0)
    arguments = {**SHAPE, **arguments, "layout": data.layout}
    model = IGRSR(data.n_items, data.n_users, **arguments)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def trained(dataset: PreparedDataset) -> tuple[IGRSR, SequenceDataModule]:
    data = _data(dataset)
    torch.manual_seed(0)
    model = IGRSR(data.n_items, data.n_users, **SHAPE)
    quiet_trainer(2).fit(model, data)
    return model.eval(), data


# Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_each_row_is_read_as_it_is_alone(switch: dict[str, Any], dataset: PreparedDataset) -> None:
    data = _data(dataset, switch.get("layout", "prefix"))
    model = _build(data, **switch)
    found = script.read(model, data)
    assert len(found.users) == dataset.n_users
    encode = {"state": model, "encoder state": model.base}
    lone = SequenceDataModule(dataset, window=12, evaluation_batch_size=1)
    with torch.no_grad():
        for row, batch in enumerate(lone.test_dataloader()):
            if row % 6:
                continue
            assert (found.users[row], found.keys[row]) == (int(batch.users), int(batch.key))
            intents = model._intents(batch.items, batch.lengths)
            assert intents is not None
            np.testing.assert_allclose(found.intents[row], intents[0], atol=1e-5)
            for name, method in encode.items():
                state = method.encode(batch)[0, : found.states[name].shape[1]]
                np.testing.assert_allclose(found.states[name][row], state, atol=1e-5)
    assert found.states["encoder state"].shape[1] == 12
    assert (found.chosen is None) == (switch.get("fusion", "cross") != "cross")


@pytest.mark.parametrize("layout", ["prefix", "all"])
def test_the_chosen_intent_is_that_of_the_inspection(layout: str, dataset: PreparedDataset) -> None:
    data = _data(dataset, layout)
    model = _build(data)
    found = script.read(model, data)
    with torch.no_grad():
        for user, key, chosen in zip(found.users, found.keys, found.chosen, strict=True):
            events = dataset.items[dataset.offsets[user] :][:key].long()
            assert model._inspect(events[None, -12:])["assignment"][-1] == chosen
    assert len(set(found.chosen.tolist())) > 1


def test_without_intents_there_is_nothing_to_probe(dataset: PreparedDataset) -> None:
    data = _data(dataset)
    model = _build(data, fusion="none", lambda_icr=0.0)
    with pytest.raises(script.RequestError, match="nothing to probe"):
        script.read(model, data)


def test_a_baseline_needs_the_same_targets(trained: tuple[IGRSR, SequenceDataModule]) -> None:
    model, data = trained
    reading = script.read(model, data)
    own = script.read_baseline(model.base, data, reading)
    np.testing.assert_array_equal(own, reading.states["encoder state"])
    with pytest.raises(script.RequestError, match="other test targets"):
        script.read_baseline(model.base, data, reading._replace(keys=reading.keys - 1))


# Agreement, diversity, stability ----------------------------------------------------------------


def test_agreement_of_known_choices() -> None:
    chosen = np.array([0, 0, 2, 2, 2])
    labels = {
        "same": np.array([5, 5, 1, 1, 1]),
        "partly known": np.array([5, -1, 1, -1, -1]),
        "one": np.zeros(5, dtype=np.int64),
        "unknown": np.full(5, -1),
    }
    found = script.measure_agreement(chosen, labels)
    assert found.pop("used") == 2
    assert found.pop("largest share") == 0.6
    assert found == {
        "same": {"nmi": 1.0, "ari": 1.0},
        "partly known": {"nmi": 1.0, "ari": 1.0},
        "one": {"nmi": 0.0, "ari": 0.0},
    }


def test_diversity_of_known_intents() -> None:
    apart = np.tile(np.eye(4, 8, dtype=np.float32), (5, 1, 1))
    found = script.measure_diversity(apart)
    assert found["cosine within an input"] == pytest.approx(0, abs=1e-6)
    assert found["rank within an input"] == pytest.approx(3)
    assert found["cosine over inputs"] == pytest.approx(1)
    assert found["rank over inputs"] == 1
    alike = np.repeat(np.eye(5, 8, dtype=np.float32)[:, None], 4, 1)
    found = script.measure_diversity(alike)
    assert found["cosine within an input"] == pytest.approx(1)
    assert found["rank within an input"] == 1
    assert found["cosine over inputs"] == pytest.approx(0, abs=1e-6)
    assert found["rank over inputs"] == pytest.approx(4)


def test_cosines_less_the_mean_see_what_a_constant_part_hides() -> None:
    rng = np.random.default_rng(0)
    clean, noisy = (rng.normal(size=(500, 8)).astype(np.float32) for _ in range(2))
    plain, centred = script.mean_cosines(clean + 100, noisy + 100)
    assert plain > 0.999
    assert abs(centred) < 0.1
    assert script.mean_cosines(clean, clean) == pytest.approx([1, 1])
    constant = np.ones((4, 3), dtype=np.float32)
    assert script.mean_cosines(constant, constant) == pytest.approx([1, 1])
    slow = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(clean, noisy, strict=True)
    ]
    assert script.mean_cosines(clean, noisy)[0] == pytest.approx(np.mean(slow), abs=1e-6)


def test_stability_under_swaps(trained: tuple[IGRSR, SequenceDataModule]) -> None:
    model, data = trained
    reading = script.read(model, data)
    reading.states["baseline state"] = script.read_baseline(model.base, data, reading)
    found = script.measure_stability(model, data, reading, (model.base, data))
    assert list(found) == ["0.1", "0.2", "0.3"]
    for rate, cell in found.items():
        assert cell["inputs touched"] == pytest.approx(float(rate), abs=0.03)
        cosines = cell["cosine, centred"]
        assert cosines["baseline state"] == cosines["encoder state"]
        assert all(abs(value) < 1 + 1e-6 for pair in cosines.values() for value in pair)
        assert cosines["intents"][1] < 0.999
        assert 0 <= cell["same intent chosen"] <= 1
    falling = [cell["cosine, centred"]["state"][0] for cell in found.values()]
    assert falling == sorted(falling, reverse=True)


def test_free_intents_are_stable_and_those_of_others_their_own(dataset: PreparedDataset) -> None:
    data = _data(dataset)
    model = _build(data, intents="free")
    reading = script.read(model, data)
    stability = script.measure_stability(model, data, reading)
    assert stability["0.3"]["cosine, centred"]["intents"] == pytest.approx([1, 1])
    use = script.measure_use(model, data, reading)
    assert use["another user's"] == use["own"] == use["as trained"]


# Use --------------------------------------------------------------------------------------------


def test_others_are_other_users_and_each_row_serves_once() -> None:
    users = np.array([3, 3, 3, 0, 5, 5, 1, 9, 9, 9])
    others = script.choose_others(users)
    assert sorted(others.tolist()) == [*range(10)]
    assert (users[others] != users).all()


@pytest.mark.parametrize("layout", ["prefix", "all"])
def test_use_begins_with_the_metrics_of_the_test(layout: str, dataset: PreparedDataset) -> None:
    data = _data(dataset, layout)
    model = _build(data)
    found = script.measure_use(model, data, script.read(model, data))
    quiet_trainer(1).test(model, data, verbose=False)
    assert model.table is not None
    for metric in script.METRICS:
        wanted = compute_metric(metric, model.table.rank).mean()
        assert found["as trained"][metric] == pytest.approx(wanted)
        assert found["own"][f"{metric}, less own"] == [0, 0]
    assert (found["as trained"] == found["own"]) == (layout == "prefix")
    assert len({cell["ndcg@10"] for cell in found.values()}) == 4 + (layout == "all")


def test_replaced_intents_against_one_row_at_a_time(dataset: PreparedDataset) -> None:
    data = _data(dataset)
    model = _build(data)
    reading = script.read(model, data)
    found = script.measure_use(model, data, reading)
    own = torch.from_numpy(reading.intents)
    given = {
        "another user's": own[script.choose_others(reading.users)],
        "mean": own.mean(0).expand(len(own), -1, -1),
        "zeros": own * 0,
    }
    ranks: dict[str, list[int]] = {name: [] for name in given}
    lone = SequenceDataModule(dataset, window=12, evaluation_batch_size=1)
    with torch.no_grad():
        for row, batch in enumerate(lone.test_dataloader()):
            for name, intents in given.items():
                last = model.reasoner(batch.items, intents[row][None]).states[0, -1]
                scores = model.item_table() @ last
                scores[[PAD, *batch.masked[0].tolist()]] = -torch.inf
                ranks[name].append(1 + int((scores > scores[batch.target]).sum()))
    for name, rank in ranks.items():
        for metric in script.METRICS:
            assert found[name][metric] == pytest.approx(compute_metric(metric, rank).mean())


def test_a_model_that_ignores_intents_loses_nothing(dataset: PreparedDataset) -> None:
    data = _data(dataset)
    model = _build(data)
    for cross in model.reasoner.crosses:
        for parameter in cross.out.parameters():  # type: ignore[union-attr]
            nn.init.zeros_(parameter)
    found = script.measure_use(model, data, script.read(model, data))
    assert all(cell == found["own"] for cell in found.values())


# The script -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two finished trials by label."""
    small = {"width": 16, "blocks": 1, "dropout": 0.1}
    models = {
        "sasrec": {"layout": "prefix", "loss": "ce", "encoder": "bert", **small},
        "igr_sr": {"pretrained": "sasrec", "num_intents": 2, **small},
    }
    return train_rows(tmp_path_factory.mktemp("probes"), models, max_epochs=2)


def _call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["intent_probes.py", *map(str, arguments)])
    script.main()


def test_the_script_prints_and_writes_all_of_a_trial(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(linear, "FOLDS", 3)
    monkeypatch.setattr(linear, "PENALTIES", (0.1,))
    out = tmp_path / "probes.json"
    _call(monkeypatch, runs["igr_sr"], "--baseline", runs["sasrec"], "--users", "40", "--out", out)
    found = json.loads(out.read_text())
    assert {"probes", "agreement", "diversity", "stability", "use"} < set(found)
    assert found["queries"] == 64
    assert found["probes"]["next category"]["queries"] <= 40
    for cell in found["probes"].values():
        assert cell["accuracy"]["baseline state"] == cell["accuracy"]["encoder state"]
    record = json.loads((runs["igr_sr"] / "result.json").read_text())["metrics"]
    for metric in script.METRICS:
        assert found["use"]["own"][metric] == pytest.approx(record[metric])
    shown = capsys.readouterr().out
    for heading in ("probe: next category", "agreement", "diversity", "stability", "use: hit_rate"):
        assert f"\n{heading}" in shown
    assert f"{found['diversity']['rank over inputs']:.4f}" in shown


def test_other_methods_are_refused(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="a trial of SASRec, not of IGR-SR"):
        _call(monkeypatch, runs["sasrec"])
