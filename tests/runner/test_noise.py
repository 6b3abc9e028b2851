"""A trial's ranks under noise, and what a spec may say of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import RequestError
from datamodules.noise import KINDS, Noise, perturb
from datamodules.prepared import load_prepared
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.formulas import compute_metric
from intentbench.results.record import TrialRecord, parse_record
from intentbench.results.store import load_noise_ranks, load_ranks
from intentbench.runner.config import Trial, write_config
from intentbench.runner.grid import RunOptions, plan_grid
from intentbench.runner.jobs import Job
from intentbench.runner.noise import NoisePlan
from intentbench.runner.recommend import load_checkpoint
from intentbench.runner.trial import run_trial
from tests.runner.conftest import MakeSpec

# the folder of a trial holds its configuration before it is run
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")

TEST = {"kinds": list(KINDS), "rates": [0.1, 0.3]}
TRAINING = {"kinds": ["swap"], "rates": [0.3], "rounding": "stochastic", "train": True}


def job(make_spec: MakeSpec, models: dict[str, Any], **more: Any) -> Job:
    spec = make_spec(models, seeds=[0], **more)
    (planned,) = plan_grid(spec, RunOptions())
    return planned.job


@pytest.fixture(autouse=True)
def _determinism() -> Iterator[None]:
    """A trial sets it for its process, which here is not its own."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="module")
def ran(
    make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Job, Path, TrialRecord]]:
    """The same method without noise, with noise at test time, and in training too."""
    found, deterministic = {}, torch.are_deterministic_algorithms_enabled()
    for name, noise in {"clean": {}, "test": TEST, "training": TRAINING}.items():
        learns = {"training": {"max_epochs": 8}, "data": {"batch_size": 8}}
        one = job(make_spec, {"toy": {}}, noise=noise, **learns)
        folder = tmp_path_factory.mktemp(name)
        write_config(folder, one.trial)
        found[name] = one, folder, run_trial(folder, one.prepared, "cpu")
    torch.use_deterministic_algorithms(deterministic)  # a trial has its process to itself
    return found


def test_names_without_noise_are_what_they_were(make_spec: MakeSpec) -> None:
    trial = job(make_spec, {"toy": {}}).trial
    parts = {
        "fingerprint": trial.fingerprint,
        "method": "toy",
        "arguments": trial.arguments,
        "data": trial.data,
        "training": trial.training.settings(),
        "seed": 0,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert trial.name == digest[:16]
    assert job(make_spec, {"toy": {}}, noise={}).trial.name == trial.name
    other = job(make_spec, {"toy": {}}, noise=TEST).trial
    assert other.name != trial.name
    # noise is code, too; the toy imports so much of the runner that its code holds it anyway
    plain, noisy = (job(make_spec, {"markov": {}}, noise=noise).trial for noise in ({}, TEST))
    assert noisy.code != plain.code


def test_the_rest_of_a_trial_does_not_depend_on_noise(
    ran: dict[str, tuple[Job, Path, TrialRecord]],
) -> None:
    _, clean, record = ran["clean"]
    assert record.noise == []
    assert "noise" not in json.loads(record.to_json())
    assert not (clean / "noise.npz").exists()
    for name in ("test", "training"):
        _, folder, other = ran[name]
        assert (other.metrics, other.validation) == (record.metrics, record.validation)
        for part, values in load_ranks(clean).items():
            np.testing.assert_array_equal(load_ranks(folder)[part], values)


def test_ranks_under_noise_are_those_of_the_stored_model(
    ran: dict[str, tuple[Job, Path, TrialRecord]],
) -> None:
    one, folder, record = ran["test"]
    ranks, dataset = load_noise_ranks(folder), load_prepared(one.prepared)
    model = load_checkpoint(folder / "best.ckpt")
    settings = [(entry["kind"], entry["rate"]) for entry in record.noise]
    assert settings == [(kind, rate) for kind in KINDS for rate in (0.1, 0.3)]
    for entry, found in zip(record.noise, ranks, strict=True):
        assert (entry["protocol"], entry["rounding"], entry["seed"]) == ("test", "floor", 0)
        noisy, share = perturb(dataset, Noise(entry["kind"], entry["rate"]))
        assert entry["share"] == share > 0
        assert "training_share" not in entry
        for name, value in entry["metrics"].items():
            assert value == pytest.approx(compute_metric(name, found).mean(), abs=1e-12)
        expected = {}
        for batch in SequenceDataModule(noisy).test_dataloader():
            with torch.no_grad():
                scores = model.score(batch)
            for user, row, target, history in zip(
                batch.users.tolist(), scores, batch.target.tolist(), batch.history, strict=True
            ):
                row[history] = -torch.inf
                tied = int((row == row[target]).sum()) - 1
                expected[user] = 1 + int((row > row[target]).sum()) + (tied + 1) // 2
        assert dict(zip(load_ranks(folder)["user"].tolist(), found.tolist(), strict=True)) == (
            expected
        )
    assert len({tuple(row) for row in ranks.tolist()}) > 4


def test_training_noise_trains_another_model_for_each_setting(
    ran: dict[str, tuple[Job, Path, TrialRecord]],
) -> None:
    _, folder, record = ran["training"]
    first, second = record.noise
    assert (first["protocol"], second["protocol"]) == ("test", "training")
    assert second["training_share"] == pytest.approx(0.3, abs=0.05)
    assert first["share"] == second["share"] == pytest.approx(0.3, abs=0.05)
    states = [
        torch.load(path, weights_only=True)["state_dict"]["inputs.weight"]
        for path in (folder / "best.ckpt", folder / "noise" / "swap-0.3" / "best.ckpt")
    ]
    assert not torch.equal(*states)
    ranks = load_noise_ranks(folder)
    assert (ranks[0] != ranks[1]).any()


def test_it_is_the_same_when_repeated(
    ran: dict[str, tuple[Job, Path, TrialRecord]], tmp_path: Path
) -> None:
    one, folder, record = ran["training"]
    write_config(tmp_path, one.trial)
    again = run_trial(tmp_path, one.prepared, "cpu")
    assert again.noise == record.noise
    np.testing.assert_array_equal(load_noise_ranks(tmp_path), load_noise_ranks(folder))
    assert parse_record(again.to_json()) == again


def test_noise_survives_the_configuration(
    ran: dict[str, tuple[Job, Path, TrialRecord]], tmp_path: Path
) -> None:
    trial = ran["training"][0].trial
    assert trial.noise == {**asdict(NoisePlan()), **TRAINING}
    again = Trial.from_config(trial.config())
    assert (again, again.name) == (trial, trial.name)


def test_a_row_may_depart_from_the_noise_of_all(make_spec: MakeSpec) -> None:
    spec = make_spec(
        {"toy": {}, "counts": {"noise": {"train": False, "rates": [0.5]}}}, noise=TRAINING
    )
    toy, counts = spec.entrants
    assert toy.noise["train"]
    assert counts.noise == {**toy.noise, "train": False, "rates": [0.5]}


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"kind": ["swap"]}, "unknown argument 'kind'; did you mean 'kinds'"),
        ({"kinds": ["swop"]}, "noise: kinds"),
        ({"rates": []}, "expected some, each once"),
        ({"rates": [0.1, 0.1]}, "expected some, each once"),
        ({"rates": [0.0, 0.1]}, "rate 0: the trial's own test is that"),
        ({"rates": [1.5]}, "must lie between 0 and 1"),
        ({"train": True, "kinds": ["insert"]}, "no 'insert' with layout 'all'; allowed: swap"),
        ([0.1], "expected keys and values"),
    ],
)
def test_wrong_noise_is_refused_in_one_line(make_spec: MakeSpec, noise: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        make_spec({"toy": {}}, noise=noise)
    assert "noise" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_methods_without_gradient_cannot_be_trained_with_noise(make_spec: MakeSpec) -> None:
    with pytest.raises(
        RequestError, match=r"counts\.noise: .* is not trained by gradient"
    ) as caught:
        make_spec({"counts": {}}, noise={"train": True})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["intentrec", "intent_sequence", "transact"])
@pytest.mark.parametrize("kind", KINDS)
def test_event_methods_take_noise_at_test_time_alone(
    make_spec: MakeSpec, method: str, kind: str
) -> None:
    """A training row under noise would have the fields of the clean events."""
    row = {method: {"fields": {"action": "behaviour"}, "intents": ["action"]}}
    with pytest.raises(RequestError, match=rf"{method}\.noise: .* not for \w+, which") as caught:
        make_spec(row, noise={"kinds": [kind], "train": True})
    assert "\n" not in str(caught.value)
    assert "give its row noise: {train: false}" in str(caught.value)
    (entrant,) = make_spec(row, noise={"kinds": [kind]}).entrants
    assert entrant.noise["kinds"] == [kind]
