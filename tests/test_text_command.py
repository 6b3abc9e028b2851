"""`intentbench text`: what it writes, sends and says; a run that is killed goes on."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.prepared import PreparedDataset
from intentbench.cli import main
from intentbench.text.documents import read_documents
from intentbench.text.endpoint import KEY_VARIABLE
from intentbench.text.features import load_features
from intentbench.text.store import FEATURES, MANIFEST
from intentbench.text.tfidf import TfidfSvd
from tests.text.toys import Script, toy_dataset, toy_endpoint

KEY = "sk-secret-0123456789"
Run = Callable[..., str]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedDataset:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.chdir(tmp_path)
    return toy_dataset(tmp_path / "toy")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command on the toy dataset; returns what it says, errors too."""

    def command(*arguments: object, status: int = 0) -> str:
        given = ["text", arguments[0], "toy", *arguments[1:]]
        assert main([str(argument) for argument in given]) == status
        streams = capsys.readouterr()
        if status == 2:
            assert len(streams.err.strip().splitlines()) == 1, streams.err
        return streams.out + streams.err

    return command


def test_embed_needs_no_option_and_gives_the_same_bytes(
    dataset: PreparedDataset, run: Run, tmp_path: Path
) -> None:
    assert "tfidf-svd-128: intents of 256 numbers" in run("embed")
    folder = Path("text/toy/tfidf-svd-128")
    run("embed", "-o", tmp_path / "again")
    for file in (FEATURES, MANIFEST):
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    assert load_features(folder, dataset).manifest.dataset == "toy"


@pytest.mark.parametrize("folder", ["t/[/x]", "t/[red]y", "t/p:ok:"])
def test_a_folder_is_printed_as_it_is_named(
    dataset: PreparedDataset, run: Run, folder: str
) -> None:
    assert f"wrote {folder}/{MANIFEST}\n" in run("embed", "--dims", 6, "-o", folder)
    assert f"wrote {folder}/" in run("summarise", "-o", folder)


def test_summarise_offline_then_embed(dataset: PreparedDataset, run: Run, tmp_path: Path) -> None:
    said = run("summarise")
    assert "users: 12 of 12 have a text" in said
    assert "items: 20 of 20 have a text" in said
    run("embed", "--documents", "text/toy", "--dims", 6, "-o", tmp_path / "a")
    run("embed", "--dims", 6, "-o", tmp_path / "b")
    assert (tmp_path / "a" / FEATURES).read_bytes() == (tmp_path / "b" / FEATURES).read_bytes()


def _everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_an_endpoints_texts_and_vectors(
    dataset: PreparedDataset, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with toy_endpoint(Script()) as script:
        url = ("--base-url", script.url)
        prices = ("--price-in", 1000, "--price-out", 10000)
        said = run("summarise", "--model", "m", *url, *prices)
        assert "sent 32 requests, 0 of them again: 320 tokens in, 64 out" in said
        assert "cost: as the server counts 0.9600 USD" in said
        assert "items: 20 of 20" in said
        texts = read_documents(Path("text/toy"), dataset.fingerprint)
        assert texts.origin == "openai-compatible:m"
        assert set(script.keys) == {f"Bearer {KEY}"}
        embedder = ("--embedder", "openai-compatible", "--model", "vectors", *url)
        embed = ("embed", "--documents", "text/toy", *embedder)
        assert "nothing was sent" in run(*embed, "--dry-run")
        assert len(script.requests) == 32
        said += run(*embed)
        assert "0 texts to send, about 0 tokens" in run(*embed, "--dry-run")
    found = load_features(Path("text/toy/openai-compatible-vectors"), dataset)
    assert found.user_intent.shape == (12, 3)
    assert found.manifest.source == "openai-compatible:vectors"
    assert found.manifest.texts == "openai-compatible:m"
    assert found.manifest.prompt_sha256 == texts.prompt_sha256
    assert found.manifest.parameters["texts"]["parameters"]["temperature"] == 0
    assert KEY not in said + caplog.text
    assert KEY.encode() not in _everything_written(tmp_path)


def test_raw_files_are_joined_through_the_map_of_ids(
    dataset: PreparedDataset, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # or its thread outlives the test
    rows = [{"asin": f"B{v}", "title": f"kite number{v}"} for v in range(1, 21)]
    Path("meta.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = "".join(f"i{v}\tB{v}\n" for v in range(1, 21))
    Path("ids.tsv").write_text("item\tasin\n" + ids)
    raw = ("--publisher", "amazon-2018", "--metadata", "meta.json", "--item-ids", "ids.tsv")
    run("summarise", *raw)
    texts = read_documents(Path("text/toy"), dataset.fingerprint)
    assert texts.items.profiles[3] == "kite number3"
    Path("ids.tsv").write_text("item\tasin\ni1\tB1\n")
    said = run("summarise", *raw, status=2)
    assert "not the numbering of toy: 1 items in the map, 20 in the data" in said


def test_a_dry_run_counts_and_sends_nothing(run: Run, dataset: PreparedDataset) -> None:
    with toy_endpoint(Script()) as script:
        options = ("--model", "m", "--base-url", script.url)
        said = run("summarise", *options, "--dry-run", "--price-in", 1, "--price-out", 1)
        assert script.requests == []
    assert "items: 20 with texts, 0 answers at hand, 20 requests to send" in said
    assert "users: 12 with texts" in said
    assert "cost: at most about" in said
    assert "nothing was sent" in said
    assert not Path("text").exists()


def test_failures_leave_with_1_and_a_list_unless_told_to_fall_back(
    run: Run, dataset: PreparedDataset
) -> None:
    with toy_endpoint(Script(lambda n, _: (400, {}) if n == 1 else None)) as script:
        options = ("summarise", "--model", "m", "--base-url", script.url)
        said = run(*options, "--concurrency", 1, status=1)
        assert "1 of 20 intents of items could not be had: 1 (status 400 (refused" in said
        assert KEY not in said
        assert not Path("text/toy/documents.jsonl.gz").exists()
        run(*options)
        assert len(script.requests) == 20 + 1 + 12
    with toy_endpoint(Script(lambda n, _: (400, {}) if n == 1 else None)) as script:
        answers = ("--answers", "other.jsonl", "--fall-back", "--base-url", script.url)
        assert "3.1% of the intents are the offline summariser's" in run(*options, *answers)


def test_a_killed_run_goes_on_where_it_was(
    run: Run, dataset: PreparedDataset, tmp_path: Path
) -> None:
    answers = Path("text/toy/answers.jsonl")
    with toy_endpoint(Script(delay=0.05)) as script:
        options = ["summarise", "--model", "m", "--base-url", script.url, "--concurrency", "2"]
        code = "import sys; from intentbench.cli import main; sys.exit(main(sys.argv[1:]))"
        arguments = [sys.executable, "-c", code, "text", options[0], "toy", *options[1:]]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen(arguments, env=environment) as killed:
            started = time.monotonic()
            while not answers.exists() or len(answers.read_bytes().splitlines()) < 8:
                assert killed.poll() is None
                assert time.monotonic() - started < 120
                time.sleep(0.02)
            killed.send_signal(signal.SIGKILL)
        kept = len(answers.read_bytes().splitlines())
        before = len(script.requests)
        assert before < 32
        script.delay = 0
        run(*options)
        assert len(script.requests) - before == 32 - kept  # nothing that was kept is asked again
    lines = answers.read_bytes().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 32


def test_wrong_requests_are_one_line(run: Run, dataset: PreparedDataset, tmp_path: Path) -> None:
    refused = {
        ("embed", "--embedder", "transformers"): "needs --model",
        ("embed", "--embedder", "precomputed"): "needs --vectors",
        ("embed", "--documents", "nowhere"): "run `intentbench text summarise`",
        ("embed", "--documents", "x", "--publisher", "yelp"): "give raw files to summarise",
        ("embed", "--dims", "0"): "dims must be at least 1",
        ("embed", "--reviews", "x"): "need --publisher",
        ("embed", "--dry-run"): "name its --model",
        ("summarise", "--model", "m", "--concurrency", "0"): "--concurrency 0",
        ("summarise", "--model", "m", "--parameters", "{"): "--parameters: not JSON",
        ("summarise", "--model", "m", "--parameters", "3"): "expected a JSON object",
        ("summarise", "--model", "m", "--base-url", "x"): "not an http",
        ("summarise", "--model", "m", "--base-url", "http://[::1"): "not an http",
        ("summarise", "--model", "m", "--parameters", '{"api_key": "x"}'): "might hold a secret",
        ("summarise", "--model", "m", "--parameters", '{"model": "n"}'): "is given otherwise",
        ("summarise", "--model", "m", "--parameters", f'{{"stop": ["{KEY}"]}}'): "hold the key",
    }
    for arguments, message in refused.items():
        assert message in run(*arguments, status=2), arguments
    with toy_endpoint(Script(lambda *_: (401, {}))) as script:
        said = run("summarise", "--model", "m", "--base-url", script.url, status=2)
        assert f"is ${KEY_VARIABLE} right?" in said
        assert KEY not in said


def test_vectors_that_are_not_finite_are_not_written(
    run: Run, dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(self: TfidfSvd, columns: dict[str, list[str]]) -> dict[str, np.ndarray]:
        return {name: np.full((len(texts), 2), np.nan) for name, texts in columns.items()}

    monkeypatch.setattr(TfidfSvd, "embed", embed)
    assert "rows of finite numbers" in run("embed", status=2)
    assert not Path("text").exists()


def test_a_key_that_goes_out_unencrypted_is_said_in_one_line(
    run: Run,
    dataset: PreparedDataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("intentbench.text.endpoint.RETRIES", 0)
    options = ("summarise", "--model", "m", "--base-url", "http://endpoint.invalid/v1")

    def unreachable() -> list[str]:
        assert main(["text", options[0], "toy", *options[1:]]) == 2
        return capsys.readouterr().err.splitlines()

    said = unreachable()
    assert said[-1].startswith("intentbench: http://endpoint.invalid/v1: no connection")
    lines = [line for line in said if "encryption" in line]
    assert len(lines) == 1
    assert "http://endpoint.invalid/v1: the key goes there without encryption" in lines[0]
    assert "encryption" not in run(*options, "--dry-run")
    monkeypatch.delenv(KEY_VARIABLE)
    assert len(unreachable()) == 1


def test_a_dataset_of_the_catalogue_is_prepared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTENTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("synthetic-tiny").mkdir()  # a name of the catalogue is no folder
    assert main(["text", "embed", "synthetic-tiny", "-o", str(tmp_path / "out")]) == 0
    assert "not empty: 100.0% of users, 100.0% of items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--model", ""), "--model is empty"),
        (("--model", " "), "--model is empty"),
        (("--model", "m", "--timeout", "nan"), "--timeout nan: must be above 0"),
        (("--model", "m", "--timeout", -1), "--timeout -1.0: must be above 0"),
        (("--model", "m", "--timeout", 0), "--timeout 0.0: must be above 0"),
        (("--model", "m", "--timeout", "inf"), "--timeout inf: must be above 0"),
    ],
)
def test_useless_options_are_refused_before_anything_is_sent(
    run: Run, dataset: PreparedDataset, arguments: tuple[object, ...], part: str
) -> None:
    with toy_endpoint(Script()) as script:
        assert part in run("summarise", *arguments, "--base-url", script.url, status=2)
        assert script.requests == []


@pytest.mark.parametrize("url", ["ftp://localhost/v1", "https://me:secret@localhost/v1"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_address_that_is_none_is_refused_before_a_plan_is_printed(
    run: Run, dataset: PreparedDataset, url: str, more: tuple[str, ...]
) -> None:
    for action in (("summarise",), ("embed", "--embedder", "openai-compatible")):
        said = run(*action, "--model", "m", "--base-url", url, *more, status=2)
        assert len(said.splitlines()) == 1
        assert "secret" not in said


def test_answers_that_cannot_be_kept_are_not_asked_for(run: Run, dataset: PreparedDataset) -> None:
    Path("notes.txt").touch()
    answers = ("--answers", "notes.txt/answers.jsonl")
    with toy_endpoint(Script()) as script:
        given = ("--model", "m", "--base-url", script.url, *answers)
        assert "notes.txt/answers.jsonl: answers cannot be kept" in run(
            "summarise", *given, status=2
        )
        embedder = ("embed", "--embedder", "openai-compatible")
        assert "answers cannot be kept there" in run(*embedder, *given, status=2)
        assert script.requests == []


def test_answers_that_are_all_at_hand_need_no_writing(
    run: Run, dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with toy_endpoint(Script()) as script:
        given = ("summarise", "--model", "m", "--base-url", script.url)
        run(*given)
        sent = len(script.requests)
        monkeypatch.setattr("intentbench.text.answers.AnswerCache.check_writable", None)
        run(*given)
        assert len(script.requests) == sent
