import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datamodules.errors import RequestError
from intentbench.text.answers import AnswerCache, request_key


def test_a_key_depends_on_everything_and_on_no_order() -> None:
    body = {"model": "m", "temperature": 0, "messages": [{"content": "a"}]}
    key = request_key("chat", body)
    assert request_key("chat", dict(reversed(body.items()))) == key
    for change in ({"model": "n"}, {"temperature": 1}, {"messages": [{"content": "b"}]}):
        assert request_key("chat", body | change) != key
    assert request_key("embedding", body) != key


def test_answers_are_on_disk_at_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    cache = AnswerCache(path)
    cache.add("k1", "m", "an intent", prompts="p")
    assert json.loads(path.read_text())["answer"] == "an intent"
    cache.add("k2", "m", "another")
    again = AnswerCache(path)
    assert (again.get("k1"), again.get("k2"), again.get("k3")) == ("an intent", "another", None)
    assert len(again) == 2


def test_a_line_that_a_killed_run_left_half_costs_that_answer_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswerCache(path).add("k1", "m", "one")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:17])
    cache = AnswerCache(path)
    assert cache.get("k1") == "one"
    cache.add("k2", "m", "two")
    again = AnswerCache(path)
    assert (again.get("k1"), again.get("k2")) == ("one", "two")


def test_threads_do_not_mix_lines(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.add(f"k{n}", "m", "x" * 500), range(100)))
    assert len(AnswerCache(cache.path)) == 100


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Dear diary,\n")
    with pytest.raises(RequestError, match="not a file of answers"):
        AnswerCache(tmp_path / "notes.txt")
