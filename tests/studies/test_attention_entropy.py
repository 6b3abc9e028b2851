"""The entropy of attention, from event files as a training writes them."""

import json
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from datamodules.errors import RequestError
from tests.studies.scripts import load_script

script = load_script("attention_entropy")


def _trial(folder: Path, parts: list[dict[int, float]], label: str = "m4_k8") -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"label": label, "seed": 1}))
    for number, part in enumerate(parts):
        with SummaryWriter(str(folder / "events"), filename_suffix=f".{number}") as writer:
            writer.add_scalar("train/total", 1.0, 0)
            for step, value in part.items():
                writer.add_scalar(script.TAG, value, step)
    return folder


def test_a_row_has_the_first_the_last_and_the_lowest_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _trial(tmp_path / "a", [{10: 0.75, 20: 0.25, 30: 0.5}])
    one_intent = _trial(tmp_path / "b", [{}], "m1_k8")
    script.main([str(whole), str(one_intent)])
    assert capsys.readouterr().out.splitlines() == [
        "row,seed,epochs,first,last,lowest",
        "m4_k8,1,3,0.7500,0.5000,0.2500",
    ]


def test_an_epoch_that_was_resumed_counts_once(tmp_path: Path) -> None:
    folder = _trial(tmp_path / "a", [{10: 0.75, 20: 0.25}, {20: 0.5, 30: 0.125}])
    assert script.entropies(folder) == [0.75, 0.5, 0.125]


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no finished trial"):
        list(script.summaries([tmp_path]))
