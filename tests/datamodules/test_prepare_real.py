"""Real data, where it is at hand, against the counts that stand beside it."""

import json
from pathlib import Path

import pytest

from datamodules.catalog import DatasetEntry, catalog
from datamodules.prepare import prepare
from datamodules.prepared import load_prepared


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTENTBENCH_DATA", raising=False)


PRESENT = [entry for entry in catalog().values() if entry.files and entry.files[0].sha256]

OTHER_COUNTS = {
    "video-5core",
    "trivago",
    "trivago-by-time",
    "yelp-actions-20core",
    "ml-100k-cf",
    "ml-1m-cf",
}
"""Entries whose recipe or options drop events of the file."""


@pytest.mark.parametrize("entry", PRESENT, ids=lambda entry: entry.name)
def test_real_data_has_the_counts_of_its_manifest(
    entry: DatasetEntry, real_data: Path, tmp_path: Path
) -> None:
    path = entry.files[0].path
    if not (real_data / path).exists():
        pytest.skip(f"{path} is not in the data folder")
    manifest = json.loads((real_data / "MANIFEST.json").read_text())["files"]
    stated = next(file for file in manifest if file["path"] == path)
    data = load_prepared(prepare(entry, real_data, tmp_path))
    assert data.meta.sources[Path(path).name] == stated["sha256"]
    if entry.name not in OTHER_COUNTS:
        for key in ("users", "items", "interactions"):
            assert data.meta.statistics[key] == stated[key]
