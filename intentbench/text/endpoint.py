"""An OpenAI-compatible endpoint: chat completions and embeddings, with retries and a token count.

The key comes from an environment variable, goes into one header, and is cut out of whatever the
server says before anyone sees it. Redirects are not followed: the key goes to no other host.
"""

import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event, Lock
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx2

from datamodules.errors import RequestError

RETRIES = 3
"""How often a request is sent again."""

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable with the key, unless another is named."""

SHORTEST_SECRET = 12
"""Characters of the shortest key taken for a secret; local servers take a word such as `none`,
which would be cut out of every answer that has it."""

LARGEST = 3.4028234663852886e38
"""The largest float32: vectors are kept as such."""

T = TypeVar("T")

_PASSING = frozenset({408, 409, 425, 429})
"""Status codes that a later attempt may not meet again; besides them, all from 500 on."""

_HOPELESS = frozenset({301, 302, 307, 308, 401, 403, 404, 405})
"""Status codes that every other request would meet as well."""

logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line a request otherwise


class AnswerError(Exception):
    """One request has failed for good; others may succeed."""


@dataclass
class Usage:
    """What was sent and what it took, as the server counts tokens."""

    requests: int = 0
    retries: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, **counts: int) -> None:
        """Add to the counts; safe for threads."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class Endpoint:
    """A client for threads to share; a context manager.

    Args:
        base_url: such as `https://api.openai.com/v1`; must hold no password.
        key_variable: environment variable with the key; where it is not set, none is sent.
        timeout: seconds that a server may be silent.
        pause: seconds before the first retry where the server names none; doubles each time.
        longest_pause: a server that asks for more is taken to be out of service.

    Attributes:
        in_clear: whether the key goes to another machine without encryption.

    Raises:
        RequestError: the address is not one, or holds a password; the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        key_variable: str = KEY_VARIABLE,
        timeout: float = 60.0,
        pause: float = 1.0,
        longest_pause: float = 120.0,
    ) -> None:
        try:
            parts = urlsplit(base_url)
            _ = parts.port  # read here: it may be no number
        except ValueError:
            raise RequestError("the base URL is not an http(s) address of an endpoint") from None
        if parts.username or parts.password or parts.query:
            raise RequestError(
                f"the base URL must hold no password and no query; put the key into ${key_variable}"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"{base_url}: not an http(s) address of an endpoint")
        self.base_url = base_url.rstrip("/")
        self.usage = Usage()
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        self._pause, self._longest = pause, longest_pause
        self._stopped = Event()
        self._reached = False  # whether it ever answered: where it did, it may be back
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise RequestError(f"${key_variable} holds no key: it has blanks or odd characters")
        remote = parts.hostname not in ("localhost", "127.0.0.1", "::1")
        self.in_clear = bool(self._key) and parts.scheme == "http" and remote
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(timeout=timeout, headers=headers, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stop(self) -> None:
        """Send nothing more, and make waiting requests give up."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether nothing more is sent."""
        return self._stopped.is_set()

    def chat(self, body: dict[str, Any], parse: Callable[[str], str]) -> str:
        """What `parse` finds in the text of a chat completion.

        Args:
            body: of the request.
            parse: raises ValueError where the text is none to take; the request is sent again.

        Raises:
            AnswerError: no attempt gave such a text.
            RequestError: as `post`.
        """

        def read(found: Any) -> str:
            try:
                content = found["choices"][0]["message"]["content"]
            except (KeyError, IndexError, TypeError):
                raise ValueError("the response is no chat completion") from None
            if not isinstance(content, str):
                raise ValueError("the response has no text")
            return self._redact(parse(content))  # there it is whole, however it was escaped

        return self.post("chat/completions", body, read)

    def embeddings(self, body: dict[str, Any]) -> list[list[float]]:
        """A vector for each text in `input` of the body.

        Raises:
            AnswerError: no attempt gave one vector of finite numbers for each text, all as long.
            RequestError: as `post`.
        """

        def read(found: Any) -> list[list[float]]:
            try:
                rows = sorted(found["data"], key=lambda row: row["index"])
                vectors = [[float(number) for number in row["embedding"]] for row in rows]
            except (KeyError, TypeError, OverflowError):
                raise ValueError("the response holds no embeddings") from None
            if [row["index"] for row in rows] != list(range(len(body["input"]))):
                raise ValueError(f"{len(rows)} vectors came back for {len(body['input'])} texts")
            if len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
                raise ValueError("the vectors that came back are empty, or of several lengths")
            if any(not abs(number) <= LARGEST for vector in vectors for number in vector):
                raise ValueError("the vectors that came back hold numbers that are not finite")
            return vectors

        return self.post("embeddings", body, read)

    def post(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        """Send a request, again where that may help; waits as long as the server asks for.

        Args:
            path: below the base URL.
            body: JSON.
            read: takes the answer out of the response's JSON; ValueError where there is none.

        Raises:
            AnswerError: it fails for good, or after `RETRIES` further attempts.
            RequestError: it would fail for every request: a wrong key, address or model.
        """
        problem, unreachable = "", False
        for attempt in range(RETRIES + 1):
            if self._stopped.is_set():
                raise AnswerError("not sent: the run has stopped")
            self.usage.add(requests=1, retries=int(attempt > 0))
            wait = self._pause * 2**attempt * random.uniform(1, 1.5)  # noqa: S311 (no secret)
            try:
                response = self._client.post(f"{self.base_url}/{path}", json=body)
                unreachable, self._reached = False, True
                if response.status_code == 200:
                    return read(self._counted(response))
                problem = self._judge(response, path)
                if (stated := self._retry_after(response)) is not None:
                    wait = stated
            except httpx2.TimeoutException as error:
                problem = "no response in time"
                unreachable = isinstance(error, httpx2.ConnectTimeout)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                problem = f"no connection ({type(error).__name__})"
                unreachable = isinstance(error, httpx2.ConnectError)
            except ValueError as error:
                problem = self._redact(str(error))
            if attempt < RETRIES:
                self._stopped.wait(wait)
        said = f"{problem}, {RETRIES + 1} times"
        if unreachable and not self._reached:
            self.stop()
            raise RequestError(f"{self.base_url}: {said}; is the address right?")
        raise AnswerError(said)

    def _counted(self, response: httpx2.Response) -> Any:
        """The JSON of a response; its tokens are counted, whether or not the answer is of use."""
        try:
            found = response.json()
            used = found.get("usage") or {}
            self.usage.add(
                tokens_in=int(used.get("prompt_tokens") or 0),
                tokens_out=int(used.get("completion_tokens") or 0),
            )
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
            raise ValueError("the response is not JSON, or has no such counts") from None
        return found

    def _judge(self, response: httpx2.Response, path: str) -> str:
        """What is wrong with a response, where another attempt may help.

        Raises:
            AnswerError: none will.
            RequestError: no other request would fare better.
        """
        status = response.status_code
        if status in _PASSING or status >= 500:
            return f"status {status}"
        said = f"status {status}{self._said(response)}"
        if status in _HOPELESS:
            self.stop()
            hint = f"; is ${self._key_variable} right?" if status in (401, 403) else ""
            raise RequestError(f"{self.base_url}/{path}: {said}{hint}")
        raise AnswerError(said)

    def _retry_after(self, response: httpx2.Response) -> float | None:
        """Seconds that the server asks for (RFC 9110, 10.2.3), None where it does not.

        Raises:
            AnswerError: they are more than anyone should wait.
        """
        stated = response.headers.get("Retry-After", "").strip()
        try:
            seconds = float(stated)
        except ValueError:
            try:
                when = parsedate_to_datetime(stated)
            except ValueError:
                return None
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            seconds = (when - datetime.now(UTC)).total_seconds()
        if not seconds <= self._longest:
            raise AnswerError(
                f"status {response.status_code}, the server asks to wait for {seconds:.0f} s"
            )
        return max(seconds, 0.0)

    def _said(self, response: httpx2.Response) -> str:
        """The server's own message, short, in one line, without the key or control characters."""
        try:
            found = response.json()
            message = found["error"]["message"] if isinstance(found["error"], dict) else ""
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        line = " ".join(str(message).split())
        shown = self._redact("".join(filter(str.isprintable, line)))[:200]
        return f" ({shown})" if shown else ""

    def _redact(self, text: str) -> str:
        secret = len(self._key) >= SHORTEST_SECRET
        return text.replace(self._key, "[key]") if secret else text
