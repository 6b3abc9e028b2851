"""Answers of an endpoint, kept on disk as they come, so that a killed run asks nothing twice.

A file of JSON lines, appended to. An answer is found again by a hash of all that it depends on. The
file holds no key and no header: it may be published, and then nobody needs a key to repeat a run.
"""

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datamodules.errors import RequestError


def request_key(kind: str, body: dict[str, Any]) -> str:
    """sha256 of a request: what is asked for, the model, the parameters, the prompt."""
    text = json.dumps([kind, body], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """The answers in a file, and a way to add one. Safe for threads, and for processes that append.

    Args:
        path: the file; it and its folder are made when an answer is added.

    Raises:
        RequestError: the file is not one of answers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._torn = False
        if path.exists():
            self._load()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Any:
        """The answer to a request, None where it was never given."""
        return self._answers.get(key)

    def add(self, key: str, model: str, answer: Any, **about: object) -> None:
        """Keep an answer; it is on disk when this returns.

        Args:
            key: of `request_key`.
            model: that gave it.
            answer: JSON.
            **about: what else to note beside it, such as tokens.

        Raises:
            OSError: the file cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"key": key, "model": model, "answer": answer, **about, "date": now}
        content = json.dumps(line, ensure_ascii=False) + "\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            start = "\n" if self._torn else ""  # what a killed run left of a line stays apart
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, (start + content).encode())
                os.fsync(file)
            finally:
                os.close(file)
            self._torn = False
            self._answers[key] = answer

    def check_writable(self) -> None:
        """See that answers can be kept, before any is paid for; makes the file.

        Raises:
            RequestError: the file cannot be opened for writing.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise RequestError(
                f"{self.path}: answers cannot be kept there ({error.strerror}); nothing was sent; "
                "name another file with --answers"
            ) from None

    def _load(self) -> None:
        content = self.path.read_bytes()
        self._torn = bool(content) and not content.endswith(b"\n")
        lines = content.split(b"\n")
        unreadable = 0
        for line in lines:
            try:
                found = json.loads(line)
                self._answers[found["key"]] = found["answer"]
            except (ValueError, KeyError, TypeError):
                unreadable += bool(line.strip())  # the last line of a killed run
        if unreadable and not self._answers:
            raise RequestError(f"{self.path}: not a file of answers; name another with --answers")
