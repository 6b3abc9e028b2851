"""Lists of RecTools for `intentbench import`.

    python rectools_lists.py events.csv ease lists.csv

`events.csv` is the suite's split (docs/submissions.md). Tried with rectools 0.19.0.
"""

import sys

import pandas as pd
from implicit.nearest_neighbours import CosineRecommender
from rectools import Columns
from rectools.dataset import Dataset, IdMap, Interactions
from rectools.models import EASEModel, ImplicitItemKNNWrapperModel

MODELS = {
    "ease": lambda: EASEModel(regularization=250),
    "item_knn": lambda: ImplicitItemKNNWrapperModel(CosineRecommender(K=items.size)),
}
events_file, name, lists_file, *rest = sys.argv[1:]
k = int(rest[0]) if rest else 100

events = pd.read_csv(events_file, dtype=str).rename(columns={"user": "user_id", "item": "item_id"})
events[Columns.Weight] = 1
events[Columns.Datetime] = pd.Timestamp(0) + pd.to_timedelta(events.index, unit="s")
train = events[events.part == "train"]
known = events[events.part.isin(["train", "valid"])]

# RecTools' matrices end with the last item that has interactions, and both must be of one size:
# items without training events come first.
trained = events.item_id.isin(train.item_id)
users = IdMap.from_values(events.user_id)
items = IdMap.from_values(pd.concat([events.item_id[~trained], events.item_id[trained]]))


def dataset(rows: pd.DataFrame) -> Dataset:
    """Rows of events, by the numbers that users and items have in all of them."""
    return Dataset(users, items, Interactions.from_raw(rows, users, items))


model = MODELS[name]().fit(dataset(train))
asked = events.user_id[events.part == "test"].unique()
# Weights are of the training part; the history at the test also holds the validation item.
lists = model.recommend(asked, dataset(known), k=k, filter_viewed=True)
lists.to_csv(lists_file, index=False)  # user_id, item_id, score, rank
