"""Lists of RecBole for `intentbench import`.

    python recbole_lists.py events.csv EASE lists.csv

`events.csv` is the suite's split (docs/submissions.md). Tried with recbole 1.2.1 beside torch 2.13,
numpy 1.26, pandas 2.2, scipy 1.12 and setuptools 80.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from recbole.utils.case_study import full_sort_topk
from scipy.sparse import csr_matrix

SETTINGS = {
    "EASE": {"reg_weight": 250.0, "epochs": 1},
    "BPR": {"embedding_size": 64, "learning_rate": 0.002, "epochs": 50, "stopping_step": 5},
}
PARTS = ("train", "valid", "test")
events_file, name, lists_file, *rest = sys.argv[1:]
k = int(rest[0]) if rest else 100
events = pd.read_csv(events_file, dtype=str)

with TemporaryDirectory() as folder:
    (Path(folder) / "data").mkdir()
    for part in PARTS:  # RecBole's benchmark files: the split is taken as it is
        rows = events[events.part == part][["user", "item"]]
        rows = rows.set_axis(["user_id:token", "item_id:token"], axis=1)
        rows.to_csv(f"{folder}/data/data.{part}.inter", sep="\t", index=False)
    paths = {"data_path": folder, "checkpoint_dir": folder, "benchmark_filename": list(PARTS)}
    columns = {"load_col": {"inter": ["user_id", "item_id"]}, "valid_metric": "NDCG@10"}
    ranking = {"metrics": ["NDCG"], "topk": [10], "use_gpu": False, "show_progress": False}
    config = Config(name, "data", config_dict=paths | columns | ranking | SETTINGS[name])
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    model = get_model(name)(config, train_data.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    trainer.fit(train_data, valid_data, verbose=False)
    best = torch.load(trainer.saved_model_file, weights_only=False)  # this script's own file
    model.load_state_dict(best["state_dict"])

if hasattr(model, "interaction_matrix"):  # the history at the test also holds the validation item
    known = events[events.part != "test"]
    rows = dataset.token2id("user_id", known.user.to_numpy())
    columns = dataset.token2id("item_id", known.item.to_numpy())
    shape = model.interaction_matrix.shape
    ones = np.ones(len(known), np.float32)
    model.interaction_matrix = csr_matrix((ones, (rows, columns)), shape)

users = events.user[events.part == "test"].to_numpy()
scores, found = full_sort_topk(dataset.token2id("user_id", users), model, test_data, k)
lists = pd.DataFrame(
    {
        "user_id": np.repeat(users, k),
        "item_id": dataset.id2token("item_id", found.flatten()),
        "score": scores.flatten(),
    }
)
lists[np.isfinite(lists.score)].to_csv(lists_file, index=False)  # -inf: history and padding
