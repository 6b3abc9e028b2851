"""Intents written by a language model: of items first, then of users from their items' intents.

Wang et al. 2025, section 3.2 and Eq. 4, with any OpenAI-compatible endpoint in place of theirs. The
paper does not say how many items a user's prompt holds, nor how reviews are cut: see `Settings`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from datamodules.errors import RequestError
from datamodules.texts import Interaction, TextData
from intentbench.text.answers import AnswerCache, request_key
from intentbench.text.asking import ask_all
from intentbench.text.documents import Documents, DocumentSet, offline_documents
from intentbench.text.endpoint import Endpoint
from intentbench.text.parameters import check_parameters
from intentbench.text.progress import follow
from intentbench.text.prompts import (
    ITEM,
    MAX_WORDS,
    USER,
    build_messages,
    check_intent,
    parse_intent,
)
from intentbench.text.prompts import prompt_sha256 as checksum_of_prompts

CHARACTERS_A_TOKEN = 4
"""Of English text, roughly; estimates only."""

TOKENS_A_WORD = 1.5
"""Of an answer, an upper estimate."""

SHOWN = 10
"""Rows and reasons that a message names, at most."""

_UNKNOWN = "x" * (MAX_WORDS * 7)
"""Stands in an estimate for an intent that has yet to be written."""


@dataclass(frozen=True)
class Settings:
    """What decides the prompts and their answers.

    Attributes:
        model: of the endpoint.
        parameters: of each request besides model and messages.
        items_a_user: training items in a user's prompt: the newest, or without timestamps a draw.
        seed: of the draw.
        review_characters: of each review.
        reviews_an_item: training reviews in an item's prompt, at most.
        description_characters: of each description.

    Raises:
        RequestError: see `check_parameters`.
    """

    model: str
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"temperature": 0, "seed": 0, "max_tokens": 512}
    )
    items_a_user: int = 20
    seed: int = 0
    review_characters: int = 300
    reviews_an_item: int = 5
    description_characters: int = 2000

    def __post_init__(self) -> None:
        check_parameters(self.parameters)


class SummariesError(RequestError):
    """Some intents could not be had; those that could are kept, another run asks for the rest."""


@dataclass(frozen=True)
class Plan:
    """What a run would send: rows of a side with a text, answers at hand, tokens to come."""

    side: str
    rows: int
    at_hand: int
    tokens_in: int
    tokens_out: int

    def __str__(self) -> str:
        return (
            f"{self.side}: {self.rows} with texts, {self.at_hand} answers at hand, "
            f"{self.rows - self.at_hand} requests to send, at most about {self.tokens_in:,} tokens "
            f"in and {self.tokens_out:,} out"
        )


class Summariser:
    """Asks for the intents of items and users.

    Args:
        data: what they may be written from: metadata and training interactions alone.
        settings: prompts and model.
        answers: what has been answered before, and where answers go.
    """

    def __init__(self, data: TextData, settings: Settings, answers: AnswerCache) -> None:
        self._data, self._settings, self._answers = data, settings, answers
        self._received = data.received()

    def plan(self) -> list[Plan]:
        """What is to be sent, an upper estimate; sends nothing."""
        items = self._item_bodies()
        found = self._at_hand(items)
        intents = [
            found.get(item, _UNKNOWN if item in items else "")
            for item in range(len(self._data.items))
        ]
        return [self._plan("items", items), self._plan("users", self._user_bodies(intents))]

    def summarise(
        self,
        endpoint: Endpoint,
        console: Console,
        concurrency: int,
        data_fingerprint: str,
        *,
        fall_back: bool,
    ) -> DocumentSet:
        """Ask for what is not at hand.

        Args:
            endpoint: to ask.
            console: for progress.
            concurrency: requests in flight at most.
            data_fingerprint: of the dataset.
            fall_back: a row without an answer gets the offline summariser's text.

        Raises:
            SummariesError: rows have no answer, and `fall_back` is false or the service is down.
            RequestError: the endpoint refuses every request.
        """
        offline = offline_documents(self._data, data_fingerprint)
        ask = (endpoint, console, concurrency, fall_back)
        items, lost_items = self._ask("items", self._item_bodies(), offline.items, *ask)
        users, lost_users = self._ask("users", self._user_bodies(items), offline.users, *ask)
        written = sum(bool(text) for text in (*items, *users))
        return DocumentSet(
            users=Documents((users,), offline.users.profiles),
            items=Documents((items,), offline.items.profiles),
            origin=f"openai-compatible:{self._settings.model}",
            prompt_sha256=checksum_of_prompts(),
            parameters=asdict(self._settings),
            data_fingerprint=data_fingerprint,
            fallback_share=(lost_items + lost_users) / max(written, 1),
        )

    def _ask(
        self,
        side: str,
        bodies: Mapping[int, dict[str, Any]],
        offline: Documents,
        endpoint: Endpoint,
        console: Console,
        concurrency: int,
        fall_back: bool,
    ) -> tuple[list[str], int]:
        """The intents of one side, and how many of them are the offline summariser's."""
        found = self._at_hand(bodies)
        missing = {row: body for row, body in bodies.items() if row not in found}

        def send(body: dict[str, Any]) -> None:
            intent = endpoint.chat(body, parse_intent)
            self._answers.add(
                request_key("chat", body), body["model"], intent, prompts=checksum_of_prompts()
            )

        with follow(console, side, len(missing)) as advance:
            failures = ask_all(endpoint, missing, send, concurrency, advance)
        if failures and (endpoint.stopped or not fall_back):
            raise SummariesError(_describe(side, failures, len(missing)))
        found = self._at_hand(bodies)
        intents = [""] * len(offline.profiles)
        for row in bodies:
            intents[row] = found[row] if row in found else _in_one(offline, row)
        return intents, len(failures)

    def _at_hand(self, bodies: Mapping[int, dict[str, Any]]) -> dict[int, str]:
        """Kept answers that would be taken if they came now; damaged ones are asked for again."""
        found = {}
        for row, body in bodies.items():
            with suppress(ValueError):
                found[row] = check_intent(self._answers.get(request_key("chat", body)))
        return found

    def _plan(self, side: str, bodies: Mapping[int, dict[str, Any]]) -> Plan:
        at_hand = self._at_hand(bodies)
        missing = [body for row, body in bodies.items() if row not in at_hand]
        characters = sum(len(part["content"]) for body in missing for part in body["messages"])
        tokens_out = int(len(missing) * MAX_WORDS * TOKENS_A_WORD)
        return Plan(side, len(bodies), len(at_hand), characters // CHARACTERS_A_TOKEN, tokens_out)

    def _body(self, instruction: str, data: Mapping[str, Any]) -> dict[str, Any]:
        messages = build_messages(instruction, data)
        return {
            "model": self._settings.model,
            "messages": messages,
            **self._settings.parameters,
        }

    def _item_bodies(self) -> dict[int, dict[str, Any]]:
        """A request for each item of which something is known."""
        limits = self._settings
        bodies = {}
        for item, text in enumerate(self._data.items):
            received = self._received[item][: limits.reviews_an_item]
            data = {
                "title": text.title,
                "categories": list(text.categories),
                "description": text.description[: limits.description_characters],
                "reviews": [self._review(event) for event in received],
            }
            if data := _filled(data):
                bodies[item] = self._body(ITEM, data)
        return bodies

    def _user_bodies(self, intents: Sequence[str]) -> dict[int, dict[str, Any]]:
        """A request for each user with training interactions of which something is known."""
        bodies = {}
        for user, history in enumerate(self._data.histories):
            choices = [self._choice(event, intents) for event in self._chosen(user, history)]
            if choices := [choice for choice in choices if choice]:
                bodies[user] = self._body(USER, {"choices": choices})
        return bodies

    def _chosen(self, user: int, history: Sequence[Interaction]) -> list[Interaction]:
        """At most `items_a_user` training interactions, one an item."""
        first: dict[int, Interaction] = {}
        for event in history:
            first.setdefault(event.item, event)
        events = list(first.values())
        if self._data.timed or len(events) <= self._settings.items_a_user:
            return events[: self._settings.items_a_user]
        rng = np.random.default_rng([self._settings.seed, user])
        drawn = rng.choice(len(events), self._settings.items_a_user, replace=False)
        return [events[place] for place in sorted(drawn)]

    def _choice(self, event: Interaction, intents: Sequence[str]) -> dict[str, Any]:
        data = {
            "title": self._data.items[event.item].title,
            "description": intents[event.item][: self._settings.description_characters],
            "review": event.review[: self._settings.review_characters],
        }
        return _filled(data) and _filled({**data, "stars": event.rating})

    def _review(self, event: Interaction) -> dict[str, Any]:
        text = event.review[: self._settings.review_characters]
        return _filled({"stars": event.rating, "text": text})


def _filled(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty."""
    return {name: value for name, value in data.items() if value not in (None, "", [])}


def _in_one(offline: Documents, row: int) -> str:
    """Likes and dislikes of the offline summariser as one text."""
    return "\n".join(part[row] for part in offline.intents if part[row])


def _describe(side: str, failures: Mapping[int, str], asked: int) -> str:
    alike: dict[str, list[int]] = {}
    for row, reason in failures.items():
        alike.setdefault(reason, []).append(row)
    shown = "; ".join(f"{_rows(rows)} ({reason})" for reason, rows in list(alike.items())[:SHOWN])
    more = f"; and {len(alike) - SHOWN} other reasons" if len(alike) > SHOWN else ""
    kept = "the others are kept: " if len(failures) < asked else ""
    return (
        f"{len(failures)} of {asked} intents of {side} could not be had: {shown}{more}; {kept}run "
        "again to ask for these alone, or take the offline text for them with --fall-back"
    )


def _rows(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(map(str, rows[:SHOWN])) + more
