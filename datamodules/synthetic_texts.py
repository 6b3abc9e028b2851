"""Sentences for synthetic items and users, written from templates.

A word slot has a topic: the planted intent of the item or, for a user, of an item among the first
half of the events. A dial replaces topics by random ones, until the texts say nothing. Users'
texts use nothing but events that come early, so they tell a ranker nothing that it cannot know.
"""

import numpy as np
from numpy.typing import NDArray

TOPICS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("camping", "outdoors", ("tent", "campfire", "sleeping bag", "lantern", "hammock", "stove")),
    ("cycling", "outdoors", ("bicycle", "saddle", "gravel road", "helmet", "chain", "bottle cage")),
    ("baking", "kitchen", ("sourdough", "oven", "whisk", "pastry", "flour", "cake tin")),
    ("coffee", "kitchen", ("espresso", "grinder", "roast beans", "kettle", "crema", "filter")),
    ("painting", "crafts", ("watercolour", "easel", "brush", "canvas", "pigment", "palette")),
    ("knitting", "crafts", ("yarn", "needles", "wool", "scarf pattern", "cable stitch", "crochet")),
    ("gaming", "electronics", ("console", "controller", "headset", "joystick", "arcade", "quest")),
    ("photography", "electronics", ("camera", "lens", "tripod", "shutter", "portrait", "flash")),
    (
        "gardening",
        "home",
        ("seedlings", "compost", "pruning", "flower bed", "trowel", "greenhouse"),
    ),
    ("sleep", "home", ("mattress", "pillow", "night light", "duvet", "earplugs", "blackout blind")),
    ("running", "sports", ("marathon", "trail shoes", "stopwatch", "sprint", "jogging", "pacing")),
    ("swimming", "sports", ("goggles", "swimsuit", "pool lanes", "flippers", "diving", "crawl")),
    ("guitar", "music", ("fretboard", "strings", "amplifier", "plectrum", "chords", "capo")),
    ("piano", "music", ("keyboard", "pedal", "sheet music", "metronome", "sonata", "tuning")),
    ("newborn", "family", ("cradle", "pacifier", "nursery", "lullaby", "stroller", "nappies")),
    ("puppy", "family", ("leash", "dog treats", "chew toy", "kennel", "grooming", "obedience")),
)
"""Name of an intent, its category, its words: real ones, so that sentence encoders see topics."""

_WORDS = np.array([words for _, _, words in TOPICS])
_LOOKS = np.array(["Compact", "Classic", "Reliable", "Modern", "Light", "Sturdy", "Handy"])
_KINDS = np.array(["set", "kit", "guide", "bundle", "companion", "accessory"])


def category(intent: int) -> str:
    """The category of an intent's items; two intents share one."""
    return TOPICS[intent][1]


def write_item_texts(
    item_intents: NDArray[np.int64],
    n_intents: int,
    uninformative: float,
    rng: np.random.Generator,
) -> list[str]:
    """A sentence an item.

    Args:
        item_intents: (V,) planted intents.
        n_intents: K, random topics are drawn from 0..K-1.
        uninformative: probability that a word's topic is random.
        rng: source of all choices.
    """
    topics = np.repeat(item_intents[:, None], 3, axis=1)
    words = _choose_words(topics, n_intents, uninformative, rng)
    looks = rng.choice(_LOOKS, len(words))
    kinds = rng.choice(_KINDS, len(words))
    return [
        f"{look} {kind} for {first} and {second}, goes well with {third}."
        for look, kind, (first, second, third) in zip(looks, kinds, words, strict=True)
    ]


def write_user_texts(
    event_topics: NDArray[np.int64],
    offsets: NDArray[np.int64],
    n_intents: int,
    uninformative: float,
    rng: np.random.Generator,
) -> list[str]:
    """A sentence a user, from items among the first half of the user's events.

    Args:
        event_topics: (E,) planted intent of each event's item.
        offsets: (N + 1,) user u owns events `offsets[u]:offsets[u + 1]`, at least two.
        n_intents: K, random topics are drawn from 0..K-1.
        uninformative: probability that a word's topic is random.
        rng: source of all choices.
    """
    early = np.diff(offsets)[:, None] // 2
    chosen = offsets[:-1, None] + rng.integers(early, size=(len(offsets) - 1, 3))
    words = _choose_words(event_topics[chosen], n_intents, uninformative, rng)
    return [
        f"Has looked at {first} and {second}, asked about {third}."
        for first, second, third in words
    ]


def _choose_words(
    topics: NDArray[np.int64], n_intents: int, uninformative: float, rng: np.random.Generator
) -> NDArray[np.str_]:
    """A word for each topic."""
    random = rng.random(topics.shape) < uninformative
    topics = np.where(random, rng.integers(n_intents, size=topics.shape), topics)
    return _WORDS[topics, rng.integers(_WORDS.shape[1], size=topics.shape)]
