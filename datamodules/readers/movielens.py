"""MovieLens as GroupLens distributes it: 100K, 1M, and the CSV files of 20M, 25M and 32M."""

import csv
from pathlib import Path
from typing import Literal

import polars as pl

from datamodules.errors import FormatError, RequestError
from datamodules.readers.base import EventTable, check_files
from datamodules.readers.lines import brief, read_delimited, read_lines, split_lines

_EVENTS: dict[str, type[pl.DataType]] = {
    "user": pl.Int64,
    "item": pl.Int64,
    "rating": pl.Float64,
    "timestamp": pl.Int64,
}
_CSV = dict(zip(("userId", "movieId", "rating", "timestamp"), _EVENTS.values(), strict=True))

_GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The genre flags of `u.item`, in its order (`u.genre`)."""

_AGES_1M = {
    1: "under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56+",
}


def read(files: dict[str, Path], release: Literal["100k", "1m", "20m"]) -> EventTable:
    """Read ratings and, where given, movies and users.

    Args:
        files: "events": `u.data`, `ratings.dat` or `ratings.csv`; for 1m also a parquet file with
            columns `user`, `movie`, `rating` and `order`, the place in time within the user.
            Optionally "items": `u.item`, `movies.dat` or `movies.csv`; and for 100k and 1m "users":
            `u.user` or `users.dat`. Plain or gzip.
        release: "20m" stands for every release of that form: 20m, 25m, 32m.

    Returns:
        Ratings; the titles as texts; item features `genre` and `year` (of release, as the title
        gives it); user features `gender`, `age` and `occupation`, the latter by its number in 1m.

    Raises:
        FormatError: a file is not in the release's form.
        RequestError: no such release.
    """
    check_files(files, optional=("items",) if release == "20m" else ("items", "users"))
    match release:
        case "100k":
            events = read_delimited(files["events"], _EVENTS, "\t")
        case "1m" if files["events"].suffix == ".parquet":
            events = _read_ordered(files["events"])
        case "1m":
            events = read_delimited(files["events"], _EVENTS, "::")
        case "20m":
            events = read_delimited(files["events"], _CSV, ",", header=True)
            events = events.rename(dict(zip(_CSV, _EVENTS, strict=True)))
        case _:
            raise RequestError(f"movielens: no release {release!r}; known: 100k, 1m, 20m")
    features, texts = {}, None
    if "items" in files:
        movies = _read_movies(files["items"], release)
        year = movies.select("item", value=pl.col("title").str.extract(r"\((\d{4})\)\s*$"))
        features = {"genre": movies.select("item", value="genres").explode("value"), "year": year}
        texts = movies.select("item", text="title")
    users = _read_users(files["users"], release) if "users" in files else {}
    return EventTable(events.lazy(), features, users, texts)


def _read_ordered(path: Path) -> pl.DataFrame:
    try:
        ratings = pl.read_parquet(path, columns=["user", "movie", "rating", "order"])
    except pl.exceptions.PolarsError as error:
        raise FormatError(f"{path}: {brief(error)}") from None
    return (
        ratings.sort("user", "order", maintain_order=True)
        .select(pl.col("user", "movie").cast(pl.Int64), pl.col("rating").cast(pl.Float64))
        .rename({"movie": "item"})
    )


def _read_movies(path: Path, release: str) -> pl.DataFrame:
    """Columns `item`, `title`, `genres` (a list)."""
    if release == "100k":
        names = ["item", "title", "date", "video_date", "url", *_GENRES_100K]
        movies = split_lines(path, names, "|", "latin-1")
        flagged = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES_100K]
        return movies.select("item", "title", genres=pl.concat_list(flagged).list.drop_nulls())
    if release == "1m":
        movies = split_lines(path, ["item", "title", "genres"], "::", "latin-1")
    else:
        movies = _read_movies_csv(path)
    no_genres = pl.col("genres") == "(no genres listed)"
    return movies.with_columns(genres=pl.when(~no_genres).then(pl.col("genres").str.split("|")))


def _read_movies_csv(path: Path) -> pl.DataFrame:
    rows = list(csv.reader(read_lines(path)))  # titles are quoted
    for number, row in enumerate(rows, start=1):
        if len(row) != 3:
            raise FormatError(f"{path}:{number}: {len(row)} fields, expected 3")
    schema = dict.fromkeys(("item", "title", "genres"), pl.String)
    return pl.DataFrame(rows[1:], schema=schema, orient="row")


def _read_users(path: Path, release: str) -> dict[str, pl.DataFrame]:
    if release == "100k":
        users = split_lines(path, ["user", "age", "gender", "occupation", "zip"], "|", "latin-1")
    else:
        users = split_lines(path, ["user", "gender", "age", "occupation", "zip"], "::", "latin-1")
        ages = {str(code): name for code, name in _AGES_1M.items()}
        users = users.with_columns(pl.col("age").replace(ages))
    return {name: users.select("user", value=name) for name in ("gender", "age", "occupation")}
