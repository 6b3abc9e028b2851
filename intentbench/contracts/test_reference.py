"""C15: the loss of the reference code, on fixed weights and a fixed batch.

`references/<key>.json` beside the method's file holds what the reference code gave:

- `origin`: repository, commit, file, and how the figures were made;
- `arguments`: of the method, `n_items` and `n_users` included;
- `weights`: every parameter and buffer by its name in the state dict, as nested lists;
- `sequences`: training events of each user;
- `loss`: each term by its name, in float64 and without dropout.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import build_dataset
from intentbench.contracts.subject import Subject
from intentbench.models.base import GradientRecommender


@pytest.mark.contract("C15")
def test_loss_equals_the_reference_codes(subject: Subject) -> None:
    file = sys.modules[subject.cls.__module__].__file__
    assert file is not None
    path = Path(file).parent / "references" / f"{subject.key}.json"
    if not path.exists():
        pytest.skip("no reference values are stored")
    reference = json.loads(path.read_text(encoding="utf-8"))
    assert reference["origin"]
    model = subject.cls(**reference["arguments"]).double().eval()
    assert isinstance(model, GradientRecommender)
    weights = {
        name: torch.tensor(value, dtype=torch.float64)  # integers are converted back on loading
        for name, value in reference["weights"].items()
    }
    model.load_state_dict(weights)
    # Two more events a user: they are held out, so that all of the sequence is for training.
    sequences = [[*sequence, 1, 1] for sequence in reference["sequences"]]
    data = build_dataset("reference", sequences, reference["arguments"]["n_items"])
    model.prepare(data.training())
    batches = SequenceDataModule(
        data,
        layout=model.layout,
        window=max(map(len, sequences)),
        pad_to_window=subject.card.fixed_window,
    )
    terms = model.loss(next(iter(batches.train_dataloader())))
    for name, value in reference["loss"].items():
        assert terms[name].item() == pytest.approx(value, rel=0, abs=1e-8), name
