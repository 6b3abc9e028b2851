"""The one line that an author runs: pytest --pyargs intentbench.contracts …"""

from pathlib import Path

import pytest

import intentbench.contracts

TOY = """
from dataclasses import replace

import torch

from datamodules.types import PAD
from intentbench.models.base import ClosedFormRecommender
from intentbench.models.card import Card

CARD = Card("Counts", "a toy", "", tiny={}, gradient=False, deterministic=True)


class Counts(ClosedFormRecommender):
    CARD = CARD

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users)
        self.register_buffer("counts", torch.zeros(n_items + 1))

    def prepare(self, training):
        self.counts = torch.bincount(training.items, minlength=self.n_items + 1).float()
        self.counts[PAD] = -torch.inf

    def score(self, batch):
        return self.counts.repeat(len(batch.users), 1)


class Peeks(Counts):
    CARD = replace(CARD, title="Peeks")

    def score(self, batch):
        scores = super().score(batch)
        scores[torch.arange(len(scores)), batch.target] = 1e6
        scores[:, PAD] = -torch.inf
        return scores


class Excused(Peeks):
    CARD = replace(CARD, title="Excused", expected_failures={"C6a": "it peeks, to show this"})


class Wrongly(Counts):
    CARD = replace(CARD, title="Wrongly", expected_failures={"C6a": "but it does not peek"})


METHODS = {"counts": Counts, "peeks": Peeks, "excused": Excused, "wrongly": Wrongly}
"""


class Outcomes:
    """Notes how each test ended."""

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            expected = "expected " if hasattr(report, "wasxfail") else ""
            self.by_test[report.nodeid.split("::")[-1]] = expected + report.outcome


def run_suite(file: str, *options: str) -> tuple[int, dict[str, str]]:
    """As an author does; `-p` stands for the entry point where the suite is not installed."""
    outcomes = Outcomes()
    line = f"--pyargs {intentbench.contracts.__name__} --intentbench-plugin {file}"
    plugins = "-p intentbench.contracts.plugin -p no:cacheprovider"
    status = pytest.main([*line.split(), *plugins.split(), *options], plugins=[outcomes])
    return int(status), outcomes.by_test


def test_suite_checks_the_methods_of_a_file_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy_methods.py").write_text(TOY, encoding="utf-8")
    target, alone = (
        "test_scores_do_not_see_the_target_or_what_follows",
        "test_user_alone_scores_as_in_a_batch",
    )
    status, outcomes = run_suite("toy_methods.py", "-k", f"{target} or {alone}")
    assert status == 1
    assert outcomes == {
        f"{target}[counts]": "passed",
        f"{target}[peeks]": "failed",
        f"{target}[excused]": "expected skipped",
        f"{target}[wrongly]": "failed",
        **{f"{alone}[{key}]": "passed" for key in ("counts", "peeks", "excused", "wrongly")},
    }


def test_a_class_named_unlike_its_file_is_told_the_names_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = TOY[: TOY.index("class Peeks")].replace("class Counts", "class LastItem")
    Path("my_method.py").write_text(alone, encoding="utf-8")
    status, outcomes = run_suite("my_method.py", "-k", "one_spelling")
    assert status == 1
    assert outcomes == {"test_file_key_and_class_have_one_spelling[my_method]": "failed"}
    text = capsys.readouterr().out
    assert "the class LastItem is no other spelling of the key 'my_method'" in text
    assert "rename the class to MyMethod, or the key to 'last_item'" in text


def test_missing_file_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _ = run_suite("no_such_file.py")
    assert status == 4
    assert "no_such_file.py: no such Python file" in capsys.readouterr().err
