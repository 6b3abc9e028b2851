"""C14: a method works in Lightning's own Trainer, and in a benchmark."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from intentbench.contracts.subject import Subject


@pytest.mark.contract("C14a")
@pytest.mark.filterwarnings("ignore:The number of training batches")  # fewer than Lightning logs
def test_plain_trainer_does_it_all(subject: Subject, tmp_path: Path) -> None:
    model = subject.build()
    batches = subject.batches(model)
    trainer = Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path)
    trainer.fit(model, batches)
    assert trainer.checkpoint_callback is not None
    for stage, run in (("val", trainer.validate), ("test", trainer.test)):
        (metrics,) = run(model, batches, verbose=False)
        assert 0 <= metrics[f"{stage}/ndcg@10"] <= metrics[f"{stage}/hit_rate@10"] <= 1
    pages = trainer.predict(model, batches)
    assert pages is not None
    assert sum(len(page["users"]) for page in pages) == subject.data.n_users
