"""What is embedded: for each user and item the texts of its intent and of its profile.

The offline summariser stands in for a language model. It extracts, it does not write: sentences of
training reviews by their stars, and the items' own texts, aggregated as IRLLRec aggregates aspects
(Wang et al. 2025, Eq. 4). The same data gives the same documents.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import FormatError, RequestError
from datamodules.texts import Interaction, TextData
from intentbench.results.store import write_atomic

LIKED, DISLIKED = 4.0, 2.0
"""Stars from which on a text speaks of likes, and up to which of dislikes; between, of both."""

SIDES = ("users", "items")

FILE = "documents.jsonl.gz"
"""Name of the documents in the folder that `intentbench text summarise` writes."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Documents:
    """The texts of one side: position u of users, v of items, whose position 0 (`PAD`) is empty.

    Attributes:
        intents: the parts of the intent: likes and dislikes, or one summary.
        profiles: everything that is known, undivided.
    """

    intents: tuple[list[str], ...]
    profiles: list[str]


@dataclass(frozen=True)
class DocumentSet:
    """The documents of a dataset.

    Attributes:
        users: N texts each.
        items: V + 1 texts each.
        origin: what wrote them: "offline", or "openai-compatible:<model>".
        prompt_sha256: of the prompts, empty where there are none.
        parameters: whatever else determined them.
        data_fingerprint: of the dataset.
        fallback_share: of the intents, those that are not by `origin` but by the offline path.
    """

    users: Documents
    items: Documents
    origin: str
    prompt_sha256: str
    parameters: dict[str, object]
    data_fingerprint: str
    fallback_share: float = 0.0

    def checksum(self) -> str:
        """sha256 of all texts."""
        digest = hashlib.sha256()
        for line in self._lines():
            digest.update(line.encode())
        return digest.hexdigest()

    def write(self, folder: Path) -> Path:
        """Write them as gzip JSON lines: what they are, then a line a row.

        Raises:
            OSError: the folder cannot be written; nothing half-written is left.
        """
        about = {
            "origin": self.origin,
            "prompt_sha256": self.prompt_sha256,
            "parameters": self.parameters,
            "data_fingerprint": self.data_fingerprint,
            "fallback_share": self.fallback_share,
            "texts_sha256": self.checksum(),
        }
        content = json.dumps(about, sort_keys=True) + "\n" + "".join(self._lines())
        path = folder / FILE
        write_atomic(path, gzip.compress(content.encode(), mtime=0))
        return path

    def _lines(self) -> Iterator[str]:
        for side, documents in zip(SIDES, (self.users, self.items), strict=True):
            for row, profile in enumerate(documents.profiles):
                intents = [part[row] for part in documents.intents]
                line = {"side": side, "row": row, "intents": intents, "profile": profile}
                yield json.dumps(line, ensure_ascii=False) + "\n"


def read_documents(folder: Path, data_fingerprint: str) -> DocumentSet:
    """Read what `DocumentSet.write` has written.

    Raises:
        RequestError: there are none, or they were made of other data.
        FormatError: the file is damaged.
    """
    path = folder / FILE
    try:
        lines = gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")
        about, rows = json.loads(lines[0]), [json.loads(line) for line in lines[1:]]
        users, items = (_side([row for row in rows if row["side"] == side]) for side in SIDES)
        checksum = about.pop("texts_sha256")
        found = DocumentSet(users, items, **about)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; run `intentbench text summarise`") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(f"{path}: damaged ({error}); run `intentbench text summarise`") from None
    if found.checksum() != checksum:
        raise FormatError(f"{path}: not as it was written; run `intentbench text summarise` again")
    if found.data_fingerprint != data_fingerprint:
        raise RequestError(
            f"{path}: made of other data: fingerprint {found.data_fingerprint[:12]}, the dataset "
            f"has {data_fingerprint[:12]}; run `intentbench text summarise` again"
        )
    return found


def _side(rows: list[dict[str, list[str]]]) -> Documents:
    parts = zip(*(row["intents"] for row in rows), strict=True)
    return Documents(tuple(map(list, parts)), [str(row["profile"]) for row in rows])


def offline_documents(data: TextData, data_fingerprint: str) -> DocumentSet:
    """Likes, dislikes and the undivided text of every user and item.

    A user likes what the own reviews with 4 stars or more say and the texts of training items
    with as many, and dislikes likewise with 2 or fewer; sentences of reviews between speak of
    both. Interactions without a rating are liked. An item has its own text among the likes, and
    the sentences that it received.
    """
    users, items = [], []
    for history in data.histories:
        texts = [(event, str(data.items[event.item])) for event in history]
        liked = [text for event, text in texts if _stars(event) >= LIKED]
        disliked = [text for event, text in texts if _stars(event) <= DISLIKED]
        users.append(_join(liked, disliked, [text for _, text in texts], history))
    for text, received in zip(data.items, data.received(), strict=True):
        items.append(_join([str(text)], [], [str(text)], received))
    return DocumentSet(
        users=_columns(users),
        items=_columns(items),
        origin="offline",
        prompt_sha256="",
        parameters={"liked": LIKED, "disliked": DISLIKED},
        data_fingerprint=data_fingerprint,
    )


def sentences(text: str) -> list[str]:
    """The sentences of a text.

    >>> sentences("Sturdy tent. Leaks at the seams! Would not buy again")
    ['Sturdy tent.', 'Leaks at the seams!', 'Would not buy again']
    """
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def _stars(event: Interaction) -> float:
    return LIKED if event.rating is None else event.rating


def _join(
    liked: list[str], disliked: list[str], texts: list[str], reviewed: Sequence[Interaction]
) -> tuple[str, str, str]:
    """Likes, dislikes, everything: texts of items and the sentences of reviews, each one once."""
    praise = _sentences(event for event in reviewed if _stars(event) > DISLIKED)
    blame = _sentences(event for event in reviewed if _stars(event) < LIKED)
    return (
        _document([*praise, *liked]),
        _document([*blame, *disliked]),
        _document([*_sentences(reviewed), *texts]),
    )


def _sentences(events: Iterable[Interaction]) -> list[str]:
    return [sentence for event in events for sentence in sentences(event.review)]


def _document(parts: list[str]) -> str:
    return "\n".join(dict.fromkeys(part for part in parts if part))


def _columns(rows: list[tuple[str, str, str]]) -> Documents:
    likes, dislikes, profiles = (list(column) for column in zip(*rows, strict=True))
    return Documents((likes, dislikes), profiles)
