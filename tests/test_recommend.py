"""`recommend` against an independent reading of its lists."""

import csv
import errno
import json
import math
import os
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import TEST, load_prepared
from datamodules.sequence import SequenceDataModule
from datamodules.types import EvaluationBatch
from intentbench.cli import main
from intentbench.models.intent_sequence import IntentSequence
from intentbench.models.intentrec import IntentRec
from intentbench.nn.reading import Reading
from intentbench.runner.recommend import load_trained, predict_intents, recommend
from tests.trials import train_rows

NARROW = {"width": 16, "item_width": 8, "blocks": 1}
FIELDS = {"action": "behaviour", "category": "value:category:16"}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a small trained SASRec, whose scores have no ties, and of an IntentRec."""
    models = {
        "sasrec": {"loss": "ce", "width": 16, "dropout": 0.1},
        "intentrec": {**NARROW, "fields": FIELDS, "short_width": 8, "intent_width": 8},
    }
    return train_rows(tmp_path_factory.mktemp("recommend"), models, max_epochs=3)


@pytest.fixture(scope="module")
def trial(trials: dict[str, Path]) -> Path:
    """Folder of the SASRec."""
    return trials["sasrec"]


def _lists(trial: Path, stage: str, k: int) -> dict[str, list[str]]:
    out = trial / f"{stage}.csv"
    command = ["recommend", str(trial / "best.ckpt"), "--stage", stage, "-k", str(k)]
    assert main([*command, "-o", str(out)]) == 0
    lists: dict[str, list[str]] = {}
    with out.open() as file:
        for row in csv.DictReader(file):
            mine = lists.setdefault(row["user"], [])
            assert int(row["rank"]) == len(mine) + 1
            mine.append(row["item"])
    return lists


def test_test_lists_give_the_metrics_of_the_record(trial: Path) -> None:
    lists = _lists(trial, "test", 20)
    data = load_prepared(prepare("synthetic-tiny"))
    users, items = data.original_ids("users"), data.original_ids("items")
    hits = gains = 0.0
    for u, user in enumerate(users):
        events = range(int(data.offsets[u]), int(data.offsets[u + 1]))
        (target,) = [items[int(data.items[e]) - 1] for e in events if int(data.split[e]) == TEST]
        if target in lists[user][:10]:
            hits += 1
            gains += 1 / math.log2(lists[user].index(target) + 2)
    metrics = json.loads((trial / "result.json").read_text())["metrics"]
    assert hits / len(users) == pytest.approx(metrics["hit_rate@10"], abs=1e-12)
    assert gains / len(users) == pytest.approx(metrics["ndcg@10"], abs=1e-12)


def test_lists_leave_the_history_out(trial: Path) -> None:
    lists = _lists(trial, "next", 40)
    data = load_prepared(prepare("synthetic-tiny"))
    items = data.original_ids("items")
    for u, user in enumerate(data.original_ids("users")):
        had = {items[i - 1] for i in data.items[data.offsets[u] : data.offsets[u + 1]].tolist()}
        assert not had & set(lists[user])
        assert len(set(lists[user])) == len(lists[user]) == min(40, data.n_items - len(had))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A spec of data with two test events a user and none for validation, and a checkpoint."""
    root = tmp_path_factory.mktemp("split")
    parts = ["train", "train", "train", "test", "test"]
    rows = [f"{u},{(u * 3 + k * 7) % 23},{part}" for u in range(20) for k, part in enumerate(parts)]
    (root / "events.csv").write_text("\n".join(["user,item,part", *rows]))
    entry = {
        "reader": "table",
        "files": {"events": str(root / "events.csv")},
        "options": {"user": "user", "item": "item", "split": "part"},
        "recipe": {"split": "pre_split"},
    }
    spec = root / "spec.yaml"
    spec.write_text(yaml.safe_dump({"datasets": [{"mine": entry}], "models": {"markov": {}}}))
    command = ["run", str(spec), "--out", str(root / "runs"), "--no-page"]
    assert main(command) == 0
    return spec, next(root.glob("runs/mine/markov/*/best.ckpt"))


def test_a_user_of_several_targets_has_one_list(split: tuple[Path, Path]) -> None:
    found = recommend(split[1], 5, "test", None)
    assert found.users.tolist() == list(range(20))
    every = recommend(split[1], 5, "next", None)
    assert len(every.users) == 20


def test_a_stage_without_events_is_refused(split: tuple[Path, Path]) -> None:
    with pytest.raises(RequestError, match="mine has no validation events"):
        recommend(split[1], 5, "validation", None)


def test_nothing_is_tuned_without_validation_events(
    split: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(split[0]), "--trials", "1"]) == 2
    assert "mine: has no validation events" in capsys.readouterr().err


def test_methods_without_intents_have_no_further_columns(trial: Path) -> None:
    assert recommend(trial / "best.ckpt", 3, "next", None).frame().columns == [
        "user", "item", "score", "rank",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", ["next", "test", "validation"])
def test_intents_are_the_likeliest_labels_of_each_user(
    trials: dict[str, Path], tmp_path: Path, stage: str
) -> None:
    checkpoint, out = trials["intentrec"] / "best.ckpt", tmp_path / "lists.parquet"
    command = ["recommend", str(checkpoint), "--stage", stage, "-k", "3", "-o", str(out)]
    assert main(command) == 0
    lists = pl.read_parquet(out)
    added = ["intent_action", "intent_category", "primary_intent"]
    assert lists.columns == ["user", "item", "score", "rank", *added]
    found = {row[0]: row[1:] for row in lists.select("user", *added).unique().iter_rows()}
    model, data = load_trained(checkpoint, None)
    assert isinstance(model, IntentRec)
    table = model.known(torch.device("cpu")).table
    loaders = {
        "next": data.predict_dataloader,
        "test": data.test_dataloader,
        "validation": data.val_dataloader,
    }
    users, wanted = data.dataset.original_ids("users"), {}
    for batch in loaders[stage]():
        with torch.no_grad():
            shares, attention = model.explain(batch)
        assert attention is not None
        for row, user in enumerate(batch.users.tolist()):
            labels = []
            for field, share in zip(table.intents, shares, strict=True):
                allowed = [
                    n
                    for n, name in enumerate(field.names)
                    if name != "" and n not in field.inputs_only
                ]
                labels.append(field.names[max(allowed, key=lambda n: float(share[row, n]))])
            weights = attention[row].tolist()
            primary = ["action", "category"][weights.index(max(weights))]
            wanted[users[user]] = (*labels, primary)
    assert found == wanted
    assert set(lists["intent_action"]) <= set(table.action_names)


def _batch() -> EvaluationBatch:
    data = SequenceDataModule(load_prepared(prepare("synthetic-tiny")), window=20)
    return next(iter(data.test_dataloader()))


def _untrained(**arguments: object) -> IntentSequence:
    data = load_prepared(prepare("synthetic-tiny"))
    fields = {"action": "behaviour", "drift": "drift:category"}
    settings = {**NARROW, "fields": fields, **arguments}
    model = IntentSequence(data.n_items, data.n_users, 20, **settings)  # type: ignore[arg-type]
    model.take(data)
    return model.eval()


def test_intents_without_attention_have_no_primary_one() -> None:
    model = _untrained(intents=("drift",))
    batch = _batch()
    with torch.no_grad():
        columns = predict_intents(model, batch)
    assert columns.keys() == {"intent_drift"}
    assert len(columns["intent_drift"]) == len(batch.users)
    assert predict_intents(_untrained(intents=()), batch) == {}


def test_labels_that_no_target_has_are_not_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have by far the greatest share, and still the best of the others is named."""
    model = _untrained()
    batch = _batch()
    action, drift = model.predicted(model.known(torch.device("cpu")))
    assert "" in action.names
    logits = []
    for field, best in ((action, 1), (drift, 3)):
        never = [n for n, name in enumerate(field.names) if not name or n in field.inputs_only]
        assert never
        assert best not in never
        scores = torch.zeros(len(batch.users), len(field.names))
        scores[:, best], scores[:, never] = 1.0, 9.0
        logits.append(scores)
    states = torch.zeros(len(batch.users), 1)
    reading = Reading(states, logits, states)
    monkeypatch.setattr(model, "reading", lambda _: (reading, states))
    columns = predict_intents(model, batch)
    assert set(columns["intent_action"]) == {action.names[1]}
    assert set(columns["intent_drift"]) == {drift.names[3]}


def _copy(trial: Path, folder: Path) -> Path:
    """A trial's folder, to be damaged."""
    shutil.copytree(trial, folder, ignore=shutil.ignore_patterns("events.*"))
    return folder


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_full_disk_leaves_the_older_lists(
    trial: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / f"lists.{suffix}"
    out.write_text("older")
    monkeypatch.setattr("os.fsync", full)
    line = _refused(capsys, "recommend", trial / "best.ckpt", "-o", out, status=1)
    assert "No space left on device" in line
    assert str(out) in line
    assert out.read_text() == "older"
    assert list(tmp_path.iterdir()) == [out]


def test_damaged_and_wrong_checkpoints_are_named(
    trials: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = _copy(trials["sasrec"], tmp_path / "trial") / "best.ckpt"
    whole = checkpoint.read_bytes()
    damaged = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "almost whole": whole[:-10],
        "short": whole[:16],
        "junk": b"\x93\xfe no checkpoint" * 90,
        "of ranks": (trials["sasrec"] / "ranks.npz").read_bytes(),
    }
    for name, content in damaged.items():
        checkpoint.write_bytes(content)
        line = _refused(capsys, "recommend", checkpoint, "-o", tmp_path / "a.csv")
        assert f"{checkpoint}: no checkpoint of a trial, or damaged" in line, name
    checkpoint.write_bytes((trials["intentrec"] / "best.ckpt").read_bytes())
    line = _refused(capsys, "recommend", checkpoint, "-o", tmp_path / "a.csv")
    assert f"{checkpoint}: its weights are not those" in line
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.filterwarnings("ignore")  # Lightning calls old jsonargparse, and gives advice
def test_lightning_refuses_them_too(
    trials: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "best.ckpt"
    config = yaml.safe_load((trials["sasrec"] / "config.yaml").read_text())
    config["trainer"] |= {"deterministic": False, "logger": False, "callbacks": []}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    whole = (trials["intentrec"] / "best.ckpt").read_bytes()
    contents = {b"": "or damaged", whole[:-10]: "or damaged", whole: "weights are not those"}
    for content, part in contents.items():
        checkpoint.write_bytes(content)
        capsys.readouterr()
        command = ["test", "--config", str(tmp_path / "config.yaml")]
        assert main([*command, "--ckpt_path", str(checkpoint)]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]  # Lightning has said things before
        assert line.startswith(f"intentbench: {checkpoint}: ")
        assert part in line


def test_damaged_configurations_are_named(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(trial, tmp_path / "trial")
    config = folder / "config.yaml"
    whole = config.read_bytes()
    cuts = [whole[: len(whole) * n // 10] for n in range(9)]
    for content in (*cuts, whole + b"\0", b"\xff\xfe\x00", b"- 1"):
        config.write_bytes(content)
        line = _refused(capsys, "recommend", folder / "best.ckpt", "-o", tmp_path / "a.csv")
        assert f"{config}: damaged, or no trial's" in line
