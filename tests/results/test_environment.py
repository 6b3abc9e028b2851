import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from intentbench.results.environment import _commit, describe_environment


def test_environment_is_json_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_TOKEN", "secret-value")
    described = describe_environment("cpu", 2)
    text = json.dumps(described)
    assert "secret-value" not in text
    assert described["variables"]["OMP_NUM_THREADS"] == "3"
    assert described["packages"]["torch"]
    assert described["threads"] == 2
    assert described["cores"] == os.cpu_count()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_changes_of_a_checkout_are_seen(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert _commit(tmp_path) == (head, False)
    (tmp_path / "file").write_text("two")
    assert _commit(tmp_path) == (head, True)


def test_folder_inside_a_foreign_repository_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    inside = tmp_path / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert _commit(inside) == ("", None)


def test_results_load_no_torch() -> None:
    code = (
        "import sys, intentbench.results.store, intentbench.results.environment, "
        "intentbench.results.fingerprint; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'lightning', 'polars', 'datasets')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
