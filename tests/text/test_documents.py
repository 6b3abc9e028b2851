import gzip
from pathlib import Path

import pytest

from datamodules.errors import FormatError, RequestError
from datamodules.texts import Interaction, ItemText, TextData, collect_texts
from intentbench.text.documents import offline_documents, read_documents
from tests.text.toys import others, toy_dataset

ITEMS = [ItemText(), ItemText("Tent", ("camping",)), ItemText("Oven"), ItemText("Kite")]


def _data(*histories: list[Interaction]) -> TextData:
    return TextData(ITEMS, list(histories), timed=True)


def test_stars_decide_what_a_text_speaks_of() -> None:
    found = offline_documents(
        _data(
            [
                Interaction(1, 5.0, "Dry. Light!"),
                Interaction(2, 1.0, "Too hot."),
                Interaction(3, 3.0, "So so."),
            ]
        ),
        "f",
    )
    likes, dislikes = (part[0] for part in found.users.intents)
    assert likes.split("\n") == ["Dry.", "Light!", "So so.", "Tent", "camping"]
    assert dislikes.split("\n") == ["Too hot.", "So so.", "Oven"]
    profile = found.users.profiles[0].split("\n")
    assert profile == ["Dry.", "Light!", "Too hot.", "So so.", "Tent", "camping", "Oven", "Kite"]


def test_items_have_their_own_text_and_received_sentences() -> None:
    found = offline_documents(
        _data([Interaction(1, 5.0, "Dry.")], [Interaction(1, 2.0, "Leaks. Dry.")]), "f"
    )
    likes, dislikes = found.items.intents
    assert likes == ["", "Dry.\nTent\ncamping", "Oven", "Kite"]
    assert dislikes == ["", "Leaks.\nDry.", "", ""]
    assert found.items.profiles[1] == "Dry.\nLeaks.\nTent\ncamping"
    assert found.items.profiles[0] == ""


def test_without_ratings_everything_is_liked_and_nothing_disliked() -> None:
    found = offline_documents(_data([Interaction(1), Interaction(2)], []), "f")
    assert found.users.intents == (["Tent\ncamping\nOven", ""], ["", ""])


def test_held_out_interactions_leave_every_document_unchanged(tmp_path: Path) -> None:
    before = toy_dataset(tmp_path / "before")
    after = toy_dataset(tmp_path / "after", held_out=others)
    first = offline_documents(collect_texts(before), "f")
    assert offline_documents(collect_texts(after), "f") == first
    assert first.checksum() == offline_documents(collect_texts(after), "g").checksum()


def test_documents_survive_the_disk_byte_for_byte(tmp_path: Path) -> None:
    documents = offline_documents(
        _data([Interaction(1, 5.0, "Schön,\u2028dry \u0085 \U0001f3d5.")], []), "f"
    )
    path = documents.write(tmp_path / "a")
    assert read_documents(tmp_path / "a", "f") == documents
    assert documents.write(tmp_path / "b").read_bytes() == path.read_bytes()


def test_documents_of_other_data_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = offline_documents(_data([Interaction(1)]), "f" * 64).write(tmp_path)
    with pytest.raises(RequestError, match="made of other data: fingerprint ffffffffffff"):
        read_documents(tmp_path, "0" * 64)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content.replace(b"Tent", b"Hut!")))
    with pytest.raises(FormatError, match="not as it was written"):
        read_documents(tmp_path, "f" * 64)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="damaged"):
        read_documents(tmp_path, "f" * 64)
    with pytest.raises(RequestError, match="no such file; run `intentbench text summarise`"):
        read_documents(tmp_path / "nowhere", "f")
