"""A small dataset with titles, categories, ratings and times, and an endpoint that misbehaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.prepared import (
    TEST,
    TRAIN,
    VALID,
    Meta,
    PreparedDataset,
    compute_fingerprint,
    load_prepared,
    write_prepared,
)

TOPICS = ("tent lantern hammock", "flour oven whisk", "yarn needles wool", "lens tripod flash")
CATEGORIES = ("camping", "baking", "knitting", "photography")
EVENTS = 6
"""Of each user; the last two are held out."""


def toy_dataset(
    folder: Path,
    n_users: int = 12,
    n_items: int = 20,
    seed: int = 0,
    held_out: Callable[[np.ndarray], np.ndarray] = lambda items: items[:, -2:].copy(),
    *,
    timed: bool = True,
    rated: bool = True,
) -> PreparedDataset:
    """A dataset on disk.

    Args:
        folder: is made.
        n_users: N.
        n_items: V.
        seed: of the events.
        held_out: from all items, (N, EVENTS), the held-out ones, (N, 2).
        timed: with timestamps.
        rated: with ratings.
    """
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(n_items)[:EVENTS] + 1 for _ in range(n_users)])
    ratings = rng.integers(1, 6, size=items.shape).astype(np.float32)
    changed = held_out(items)
    ratings[:, -2:][changed != items[:, -2:]] = 3.5
    items[:, -2:] = changed
    topic = [item % len(TOPICS) for item in range(n_items)]
    titles = [f"{TOPICS[t]} number{item}" for item, t in enumerate(topic)]
    dataset = PreparedDataset(
        Meta("toy", "", {}, "successive", {"items": n_items}, {}, ("category",)),
        torch.from_numpy(items.reshape(-1).astype(np.int32)),
        torch.tensor([TRAIN] * (EVENTS - 2) + [VALID, TEST], dtype=torch.uint8).repeat(n_users),
        torch.arange(0, n_users * EVENTS + 1, EVENTS),
        torch.arange(n_users * EVENTS) if timed else None,
        ratings=torch.from_numpy(ratings.reshape(-1)) if rated else None,
        features={
            "item.category.values": torch.tensor([t + 1 for t in topic], dtype=torch.int32),
            "item.category.offsets": torch.tensor([0, *range(n_items + 1)]),
        },
    )
    fingerprint = compute_fingerprint(dataset.tensors(), {})
    dataset = replace(dataset, meta=replace(dataset.meta, fingerprint=fingerprint))
    folder.mkdir(parents=True)
    texts = {"items": titles, "item.category": list(CATEGORIES)}
    users = [f"u{user}" for user in range(n_users)]
    write_prepared(dataset, folder, users, [f"i{v}" for v in range(1, n_items + 1)], texts)
    return load_prepared(folder)


def others(items: np.ndarray) -> np.ndarray:
    """Other items in place of the held-out ones, which the user has not had."""
    return np.stack([np.setdiff1d(np.arange(1, 21), row)[:2] for row in items])


@dataclass
class Script:
    """What the toy endpoint does, and what it has seen.

    Attributes:
        behave: from the number of a request, from 1, and its body: a status and headers to answer
            with, a text to send as it is, or None for a proper answer.
        requests: bodies, in order of arrival.
        keys: Authorization headers.
        delay: seconds before each answer.
    """

    behave: Callable[[int, Mapping[str, Any]], tuple[int, dict[str, str]] | str | None] = (
        lambda number, body: None
    )
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    delay: float = 0.0
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a well-behaved endpoint says."""
    if "input" in body:
        rows = [
            {"index": n, "embedding": [float(len(text)), float(text.count("e")), 1.0]}
            for n, text in enumerate(body["input"])
        ]
        return {"data": rows[::-1], "usage": {"prompt_tokens": 3}}  # in another order: allowed
    said = json.loads(body["messages"][1]["content"])
    intent = f"intent of {said.get('title', 'a user')}"
    content = json.dumps({"intent": intent})
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    return {"choices": [{"message": {"content": content}}], "usage": usage}


@contextmanager
def toy_endpoint(script: Script) -> Iterator[Script]:
    """An HTTP server on this machine that follows a script."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.requests.append(body)
                script.keys.append(self.headers.get("Authorization"))
                number = len(script.requests)
                script.at_once += 1
                script.most_at_once = max(script.most_at_once, script.at_once)
            time.sleep(script.delay)
            done = script.behave(number, body)
            with script.lock:
                script.at_once -= 1
            status, content = 200, json.dumps(answer(body))
            headers: dict[str, str] = {}
            if isinstance(done, str):
                content = done
            elif done is not None:
                status, headers = done
                said = f"refused {self.headers.get('Authorization')}"
                content = json.dumps({"error": {"message": said}})
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content.encode())))
                self.end_headers()
                self.wfile.write(content.encode())
            except OSError:  # the client has given up
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
