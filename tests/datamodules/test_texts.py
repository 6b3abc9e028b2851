from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.errors import RequestError
from datamodules.texts import ItemText, RawTexts, Review, collect_ids, collect_texts
from tests.text.toys import EVENTS, others, toy_dataset


def _reviews_of_all(dataset: object, about: str = "") -> list[Review]:
    """A review of every interaction, held-out ones too, without times."""
    items, per_user = dataset.items.tolist(), EVENTS  # type: ignore[attr-defined]
    return [
        Review(event // per_user, item, None, 5.0, f"{about} review {event}")
        for event, item in enumerate(items)
    ]


def test_items_have_titles_and_categories_but_no_numbers(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    data = collect_texts(dataset)
    assert len(data.items) == dataset.n_items + 1
    assert data.items[0] == ItemText()
    assert data.items[1] == ItemText("tent lantern hammock number0", ("camping",))
    (dataset.folder / "item.category.texts.json").write_text('["1", "2", "3", "4"]')  # type: ignore[operator]
    assert collect_texts(dataset).items[1].categories == ()


def test_histories_are_training_interactions_newest_first(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    data = collect_texts(dataset)
    for user, history in enumerate(data.histories):
        start = user * EVENTS
        expected = dataset.items[start : start + EVENTS - 2].tolist()[::-1]
        assert [event.item for event in history] == expected
        ratings = dataset.ratings[start : start + EVENTS - 2].tolist()[::-1]  # type: ignore[index]
        assert [event.rating for event in history] == ratings


def test_only_reviews_of_training_interactions_are_kept(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    data = collect_texts(dataset, RawTexts(reviews=_reviews_of_all(dataset)))
    kept = {event.review for history in data.histories for event in history}
    training = {f" review {e}" for e in range(len(dataset.items)) if e % EVENTS < EVENTS - 2}
    assert kept == training
    received = [event.review for events in data.received() for event in events]
    assert sorted(received) == sorted(training)


def test_changing_held_out_interactions_and_reviews_changes_nothing(tmp_path: Path) -> None:
    before = toy_dataset(tmp_path / "before")
    after = toy_dataset(tmp_path / "after", held_out=others)
    assert (before.items != after.items).sum() == 2 * before.n_users
    held = [e for e in range(len(before.items)) if e % EVENTS >= EVENTS - 2]
    reviews = _reviews_of_all(before)
    changed = [
        replace(review, text="something else", rating=1.0) if event in held else review
        for event, review in enumerate(_reviews_of_all(after))
    ]
    first = collect_texts(before, RawTexts(reviews=reviews))
    assert collect_texts(after, RawTexts(reviews=changed)) == first
    assert collect_texts(after, RawTexts(reviews=changed)).checksum() == first.checksum()


def test_a_review_that_may_be_of_a_held_out_repeat_is_dropped(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    first = int(dataset.items[0])
    dataset.items[EVENTS - 1] = first  # the test item is one of the user's training items
    untimed = Review(0, first, None, 5.0, "which one?")
    data = collect_texts(dataset, RawTexts(reviews=[untimed]))
    assert not any(event.review for event in data.histories[0])
    of_training, of_test = replace(untimed, seconds=0), replace(untimed, seconds=EVENTS - 1)
    data = collect_texts(dataset, RawTexts(reviews=[of_test]))
    assert not any(event.review for event in data.histories[0])
    data = collect_texts(dataset, RawTexts(reviews=[of_test, of_training]))
    assert [event.review for event in data.histories[0]] == ["", "", "", "which one?"]


def test_a_review_of_another_time_is_not_the_training_interactions(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    later = Review(0, int(dataset.items[0]), 10_000, 5.0, "a second visit that is not in the data")
    data = collect_texts(dataset, RawTexts(reviews=[later]))
    assert not any(event.review for event in data.histories[0])


def test_data_without_ratings_takes_those_of_reviews(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy", timed=False, rated=False)
    data = collect_texts(
        dataset, RawTexts(reviews=[Review(0, int(dataset.items[0]), 7, 2.0, "dull")])
    )
    assert not data.timed
    assert [event.rating for event in data.histories[0]] == [None, None, None, 2.0]


def test_raw_metadata_stands_in_place_of_the_datas_own(tmp_path: Path) -> None:
    raw = RawTexts(items={2: ItemText("A title", ("toys",), "Words.")})
    data = collect_texts(toy_dataset(tmp_path / "toy"), raw)
    assert str(data.items[2]) == "A title\ntoys\nWords."
    assert data.items[3].title == "yarn needles wool number2"


def test_items_as_words_of_their_own_keep_the_histories_and_no_text(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    found, real = collect_ids(dataset), collect_texts(dataset)
    words = [str(text) for text in found.items]
    assert words[0] == ""
    assert words[1:] == [f"item{v}" for v in range(1, dataset.n_items + 1)]
    assert (found.histories, found.timed) == (real.histories, real.timed)


def test_a_dataset_without_any_text_is_refused(tmp_path: Path) -> None:
    dataset = replace(toy_dataset(tmp_path / "toy"), folder=None)
    with pytest.raises(RequestError, match=r"toy: no item has a text.*--metadata"):
        collect_texts(dataset)
