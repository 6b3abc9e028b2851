"""Options of `intentbench text` that cannot be met are refused before any data is looked for."""

import pytest

from intentbench.cli import main


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("embed --vectors made", "--embedder tfidf-svd reads none; name --embedder precomputed"),
        ("embed --vectors made --embedder transformers --model m", "transformers reads none"),
        ("embed --model m", "--model m: --embedder tfidf-svd has none; name an embedder that has"),
        ("embed --model m --dry-run", "--embedder tfidf-svd has none"),
        ("embed --model m --embedder precomputed --vectors v", "--embedder precomputed has none"),
        ("embed --item-ids map.tsv", "need --publisher: whose ids are they?"),
        ("summarise --user-ids map.tsv", "need --publisher: whose ids are they?"),
        ("summarise --fall-back", "are for an endpoint; name its --model, or leave them out"),
        ("summarise --parameters {}", "are for an endpoint; name its --model, or leave them out"),
    ],
)
def test_options_that_nothing_would_read_are_refused(
    capsys: pytest.CaptureFixture[str], given: str, part: str
) -> None:
    assert part in _refused(capsys, given)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("embed --max-df 7", "--max-df 7.0: a share of the documents, above 0, at most 1"),
        ("embed --max-df 0", "--max-df 0.0: a share"),
        ("embed --max-df nan", "--max-df nan: a share"),
        ("embed --price-in -1", "--price-in -1.0: must be a number from 0 on"),
        ("summarise --model m --price-out -0.5", "--price-out -0.5: must be a number from 0 on"),
        ("summarise --model m --price-out inf", "--price-out inf: must be a number from 0 on"),
    ],
)
def test_numbers_out_of_range_are_refused(
    capsys: pytest.CaptureFixture[str], given: str, part: str
) -> None:
    assert part in _refused(capsys, given)


def _refused(capsys: pytest.CaptureFixture[str], given: str) -> str:
    action, *options = given.split()
    assert main(["text", action, "no-such-data", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line
