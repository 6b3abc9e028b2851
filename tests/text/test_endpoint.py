import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from datamodules.errors import RequestError
from intentbench.text.endpoint import KEY_VARIABLE, RETRIES, AnswerError, Endpoint
from intentbench.text.prompts import build_messages, parse_intent
from tests.text.toys import Script, toy_endpoint

KEY = "sk-secret-0123456789"
BODY: dict[str, Any] = {"model": "m", "messages": build_messages("Say.", {"title": "a tent"})}
Behaviour = Callable[[int, Mapping[str, Any]], tuple[int, dict[str, str]] | str | None]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def _ask(behave: Behaviour, **options: Any) -> tuple[str, Script, Endpoint, float]:
    with (
        toy_endpoint(Script(behave)) as script,
        Endpoint(script.url, **{"pause": 0.01, **options}) as endpoint,
    ):
        started = time.monotonic()
        try:
            found = endpoint.chat(BODY, parse_intent)
        except AnswerError as error:
            found = f"AnswerError: {error}"
        return found, script, endpoint, time.monotonic() - started


def test_sends_the_key_and_the_body_and_counts_tokens() -> None:
    found, script, endpoint, _ = _ask(lambda *_: None)
    assert found == "intent of a tent"
    assert script.requests == [BODY]
    assert script.keys == [f"Bearer {KEY}"]
    usage = endpoint.usage
    assert (usage.requests, usage.retries, usage.tokens_in, usage.tokens_out) == (1, 0, 10, 2)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    assert _ask(lambda *_: None)[1].keys == [None]
    monkeypatch.setenv("OTHER", "another-key")
    assert _ask(lambda *_: None, key_variable="OTHER")[1].keys == ["Bearer another-key"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_three_times(status: int) -> None:
    found, script, endpoint, _ = _ask(lambda n, _: (status, {}) if n <= 3 else None)
    assert found == "intent of a tent"
    assert len(script.requests) == 4
    assert endpoint.usage.retries == 3
    found, script, _, _ = _ask(lambda *_: (status, {}))
    assert found == f"AnswerError: status {status}, 4 times"
    assert len(script.requests) == 4


@pytest.mark.parametrize(
    "stated", ["0.4", format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)]
)
def test_waits_as_long_as_the_server_asks_for(stated: str) -> None:
    limited: Behaviour = lambda n, _: (429, {"Retry-After": stated}) if n == 1 else None  # noqa: E731
    found, _, _, seconds = _ask(limited, pause=30.0)
    assert found == "intent of a tent"
    assert (0.4 if stated == "0.4" else 0) <= seconds < 15


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    found, script, _, _ = _ask(lambda *_: (429, {"Retry-After": "3600"}))
    assert found == "AnswerError: status 429, the server asks to wait for 3600 s"
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "content",
    ["{broken", '{"choices": []}', '{"choices": [{"message": {"content": "no json"}}]}', "[]"],
)
def test_broken_answers_are_asked_for_again(content: str) -> None:
    found, script, _, _ = _ask(lambda n, _: content if n <= 2 else None)
    assert found == "intent of a tent"
    assert len(script.requests) == 3
    assert "4 times" in _ask(lambda *_: content)[0]


def test_a_silent_server_is_given_up() -> None:
    def hang(number: int, _: Mapping[str, Any]) -> None:
        if number == 1:
            time.sleep(0.6)

    found, script, _, _ = _ask(hang, timeout=0.2)
    assert found == "intent of a tent"
    assert len(script.requests) == 2


def test_no_server_is_a_failure_in_words() -> None:
    with toy_endpoint(Script()) as script:
        url = script.url
    with Endpoint(url, pause=0.01) as endpoint, pytest.raises(RequestError) as error:
        endpoint.chat(BODY, parse_intent)
    assert str(error.value).startswith(f"{url}: no connection (ConnectError), {RETRIES + 1} times;")
    assert endpoint.stopped


def test_an_address_that_swallows_connections_is_doubted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def swallow(*_: object, **__: object) -> None:
        raise httpx2.ConnectTimeout("timed out")

    monkeypatch.setattr(httpx2.Client, "post", swallow)
    with (
        Endpoint("http://10.255.255.1/v1", pause=0.01) as endpoint,
        pytest.raises(RequestError, match="no response in time, 4 times; is the address right"),
    ):
        endpoint.chat(BODY, parse_intent)
    assert endpoint.stopped


def test_a_server_that_answered_and_went_may_come_back() -> None:
    with toy_endpoint(Script()) as script, Endpoint(script.url, pause=0.01) as endpoint:
        assert endpoint.chat(BODY, parse_intent) == "intent of a tent"
        endpoint.base_url = "http://127.0.0.1:9/v1"
        with pytest.raises(AnswerError, match="no connection"):
            endpoint.chat(BODY, parse_intent)
        assert not endpoint.stopped


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_request_would_pass_stops_at_once_and_hides_the_key(status: int) -> None:
    with (
        toy_endpoint(Script(lambda *_: (status, {}))) as script,
        Endpoint(script.url) as endpoint,
        pytest.raises(RequestError, match=f"status {status}") as error,
    ):
        endpoint.chat(BODY, parse_intent)
    assert KEY not in str(error.value)
    assert "refused Bearer [key]" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(script.requests) == 1


def test_a_request_that_is_refused_fails_alone_and_hides_the_key() -> None:
    found, script, _, _ = _ask(lambda *_: (400, {}))
    assert found == "AnswerError: status 400 (refused Bearer [key])"
    assert len(script.requests) == 1


def test_a_redirect_takes_the_key_nowhere() -> None:
    with (
        toy_endpoint(Script()) as elsewhere,
        toy_endpoint(Script(lambda *_: (307, {"Location": elsewhere.url}))) as script,
        Endpoint(script.url) as endpoint,
        pytest.raises(RequestError, match="status 307"),
    ):
        endpoint.chat(BODY, parse_intent)
    assert elsewhere.requests == []


def test_an_answer_that_repeats_the_key_comes_without_it() -> None:
    echo = f'{{"choices": [{{"message": {{"content": "{{\\"intent\\": \\"{KEY}\\"}}"}}}}]}}'
    assert _ask(lambda *_: echo)[0] == "[key]"


def test_a_placeholder_for_a_key_cuts_nothing_out_of_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "none")
    said = '{"choices": [{"message": {"content": "{\\"intent\\": \\"none of the exams\\"}"}}]}'
    assert _ask(lambda *_: said)[0] == "none of the exams"


def test_an_answer_that_hides_the_key_in_escapes_comes_without_it() -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in KEY)  # as JSON inside JSON
    content = json.dumps({"choices": [{"message": {"content": f'{{"intent": "is {escaped}"}}'}}]})
    assert KEY not in content
    assert _ask(lambda *_: content)[0] == "is [key]"


@pytest.mark.parametrize("between", ["\x1b", "\x00", "\u200b"])
def test_what_a_server_says_has_no_key_in_pieces_and_no_escape_sequences(between: str) -> None:
    said = f"\x1b[31mred\x1b]0;title\x07 {KEY[:9]}{between}{KEY[9:]}\r\n\x9b2J end"
    response = httpx2.Response(400, json={"error": {"message": said}})
    with Endpoint("https://host/v1") as endpoint:
        found = endpoint._said(response)
    assert found == " ([31mred]0;title [key] 2J end)"


@pytest.mark.parametrize("error", ['"text"', '{"message": "\\u001b"}', "{}"])
def test_a_server_that_says_nothing_readable_adds_nothing(error: str) -> None:
    response = httpx2.Response(400, content=f'{{"error": {error}}}')
    with Endpoint("https://host/v1") as endpoint:
        assert endpoint._said(response) == ""


@pytest.mark.parametrize(
    "content",
    [
        '{"usage": {"prompt_tokens": 1e999}, "choices": []}',
        '{"usage": {"completion_tokens": "many"}, "choices": []}',
        "[" * 100_000,
        '{"choices": [{"message": {"content": "' + "[" * 100_000 + '"}}]}',
    ],
)
def test_counts_and_depths_beyond_reason_are_asked_for_again(content: str) -> None:
    found, script, _, _ = _ask(lambda n, _: content if n == 1 else None)
    assert found == "intent of a tent"
    assert len(script.requests) == 2


def test_a_refusal_of_any_depth_is_one_line() -> None:
    with Endpoint("https://host/v1") as endpoint:
        assert endpoint._said(httpx2.Response(400, content="[" * 100_000)) == ""


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/v1", "http://host:99999/v1"])
def test_addresses_that_cannot_be_read_are_one_line(url: str) -> None:
    with pytest.raises(RequestError, match=r"the base URL is not an http\(s\) address"):
        Endpoint(url)


@pytest.mark.parametrize(
    ("url", "in_clear"),
    [
        ("http://example.org/v1", True),
        ("http://127.example.org/v1", True),
        ("https://example.org/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://[::1]:8000/v1", False),
    ],
)
def test_a_key_that_would_go_out_unencrypted_is_noticed(
    url: str, in_clear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Endpoint(url) as endpoint:
        assert endpoint.in_clear is in_clear
    monkeypatch.delenv(KEY_VARIABLE)
    with Endpoint(url) as endpoint:
        assert not endpoint.in_clear


def test_embeddings_come_in_the_order_of_the_texts() -> None:
    with toy_endpoint(Script()) as script, Endpoint(script.url) as endpoint:
        found = endpoint.embeddings({"model": "m", "input": ["ee", "a", "eee"]})
    assert found == [[2.0, 2.0, 1.0], [1.0, 0.0, 1.0], [3.0, 3.0, 1.0]]


@pytest.mark.parametrize(
    "content",
    [
        '{"data": []}',
        '{"data": [{"index": 0}]}',
        '{"x": 1}',
        '{"data": [{"index": 0, "embedding": []}]}',
        '{"data": [{"index": 0, "embedding": [1.0, NaN]}]}',
        '{"data": [{"index": 0, "embedding": [1.0, -Infinity]}]}',
        '{"data": [{"index": 0, "embedding": [1.0, 1e39]}]}',  # none of a float32
        '{"data": [{"index": 0, "embedding": [1.0, 1' + "0" * 400 + "]}]}",
    ],
)
def test_embeddings_that_are_not_whole_are_asked_for_again(content: str) -> None:
    with (
        toy_endpoint(Script(lambda n, _: content if n == 1 else None)) as script,
        Endpoint(script.url, pause=0.01) as endpoint,
    ):
        assert len(endpoint.embeddings({"model": "m", "input": ["a"]})) == 1
    assert len(script.requests) == 2


def test_embeddings_of_several_lengths_are_asked_for_again() -> None:
    rows = [{"index": n, "embedding": [1.0] * (n + 1)} for n in range(2)]
    content = json.dumps({"data": rows})
    with (
        toy_endpoint(Script(lambda n, _: content if n == 1 else None)) as script,
        Endpoint(script.url, pause=0.01) as endpoint,
    ):
        assert len(endpoint.embeddings({"model": "m", "input": ["a", "b"]})) == 2
    assert len(script.requests) == 2


@pytest.mark.parametrize("url", ["ftp://host/v1", "nonsense", "https:///v1"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(RequestError, match="not an http"):
        Endpoint(url)


@pytest.mark.parametrize("url", ["https://user:hunter2@host/v1", "https://host/v1?api_key=hunter2"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RequestError, match="must hold no password") as error:
        Endpoint(url)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("{}", "no text"),
        ('{"intent": " "}', "no text"),
        ('{"intent": 3}', "no text"),
        ('["intent"]', "no text"),
        ('{"intent": "' + "word " * 201 + '"}', "201 words"),
        ("I would say tents", "not JSON"),
        ('{"intent": "a \\ud83d tent"}', "half a character"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_intents_that_are_none_are_refused(answer: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_intent(answer)
    assert len(parse_intent('{"intent": "' + "word " * 200 + '"}').split()) == 200


@pytest.mark.parametrize("key", ["two words", "line\nline", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(RequestError, match="holds no key") as error:
        Endpoint("https://host/v1")
    assert key not in str(error.value)
