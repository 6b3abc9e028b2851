"""Lists of RePlay for `intentbench import`.

    python replay_lists.py events.csv pop lists.parquet

`events.csv` is the suite's split (docs/submissions.md). Tried with replay-rec[spark] 0.22.0,
pyspark 4.3 and Java 17: RePlay's models without gradients need Spark.
"""

import sys

import pandas as pd
from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureType
from replay.models import ItemKNN, PopRec
from replay.preprocessing import LabelEncoder, LabelEncodingRule
from replay.utils.session_handler import State, get_spark_session
from replay.utils.spark_utils import convert2spark

MODELS = {
    "item_knn": lambda: ItemKNN(num_neighbours=10**6, shrink=10),
    "pop": lambda: PopRec(add_cold_items=True),
}
events_file, name, lists_file, *rest = sys.argv[1:]
k = int(rest[0]) if rest else 100
State(get_spark_session(spark_memory=4, shuffle_partitions=4, core_count=1))

events = pd.read_csv(events_file, dtype=str).rename(columns={"user": "user_id", "item": "item_id"})
events["rating"] = 1.0
events["timestamp"] = range(len(events))
# RePlay counts users and items from 0.
encoder = LabelEncoder([LabelEncodingRule("user_id"), LabelEncodingRule("item_id")])
numbered = encoder.fit_transform(events)
schema = FeatureSchema(
    [
        FeatureInfo("user_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
        FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
        FeatureInfo("rating", FeatureType.NUMERICAL, FeatureHint.RATING),
        FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
    ]
)


def dataset(rows: pd.DataFrame) -> Dataset:
    """Rows of events, as RePlay takes them."""
    return Dataset(schema, convert2spark(rows.drop(columns="part")))


train = numbered[numbered.part == "train"]
known = numbered[numbered.part != "test"]
asked = numbered[numbered.part == "test"]
model = MODELS[name]()
model.fit(dataset(train))
# Weights are of the training part; the history at the test also holds the validation item.
lists = model.predict(
    dataset(known),
    k=k,
    queries=asked.user_id.unique().tolist(),
    items=numbered.item_id.unique().tolist(),
    filter_seen_items=True,
)
lists = encoder.inverse_transform(lists.toPandas())
lists.to_parquet(lists_file)  # user_id, item_id, rating
