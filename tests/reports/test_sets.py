"""Pages of data whose held-out items of a user are a set."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.metrics.users import metric_names
from intentbench.reports.cells import Result, build_tables
from intentbench.reports.columns import accuracy_columns
from intentbench.reports.comparison import compare_labels, render_comparisons
from intentbench.reports.exports import render_csv, render_json
from intentbench.reports.leaderboard import Leaderboard, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish_results
from intentbench.stats.contrast import contrast
from tests.metrics import reference
from tests.reports.fake_runs import KNN, ORACLE, POPULARITY, SASREC, FakeModel, fake_record

USERS, ITEMS = 60, 300
MODELS = (POPULARITY, KNN, replace(SASREC, published=()))
PLAN = Plan(title="Sets", reference="item_knn", seeds=(0, 1, 2))
FIGURE = {"dataset": "yelp-cf", "value": 0.5, "source": "A Paper (2025), table 2", "when": {}}


def owners() -> list[int]:
    """How many held-out items each user has."""
    return [int(count) for count in np.random.default_rng(1).integers(1, 30, USERS)]


def set_ranks(model: FakeModel, seed: int) -> dict[str, np.ndarray]:
    """Ranks of each user's targets, no two equal: the better the model, the lower."""
    generator = np.random.default_rng([seed, len(model.label)])
    rank = []
    for count in owners():
        merit = generator.normal(size=ITEMS)
        merit[:count] += model.strength  # the targets are the first items
        order = np.argsort(-merit, kind="stable")
        place = np.empty(ITEMS, dtype=np.int64)
        place[order] = np.arange(1, ITEMS + 1)
        rank += place[:count].tolist()
    key = np.concatenate([10 + np.arange(count) for count in owners()])
    return {"user": np.repeat(np.arange(USERS), owners()), "key": key, "rank": np.array(rank)}


def slow_values(name: str, ranks: dict[str, np.ndarray]) -> list[float]:
    """A metric of each user, by loops."""
    own: list[list[int]] = [[] for _ in range(USERS)]
    for user, rank in zip(ranks["user"].tolist(), ranks["rank"].tolist(), strict=True):
        own[user].append(rank)
    return [reference.set_metric(name, one) for one in own]


def slow_means(ranks: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.mean(slow_values(name, ranks))) for name in metric_names("train")}


def trial(model: FakeModel, seed: int, dataset: str = "yelp-cf", **changes: Any) -> Result:
    ranks = set_ranks(model, seed)
    record = fake_record(model, dataset, seed, ranks["rank"])
    protocol = {**record.protocol, "split": "pre_split", "history": "train"}
    protocol = dict(sorted(protocol.items()))  # as records on disk have it
    made = replace(record, metrics=slow_means(ranks), protocol=protocol)
    return replace(made, **changes), ranks


def trials(models: Sequence[FakeModel] = MODELS) -> list[Result]:
    return [trial(m, seed) for m in models for seed in ((0,) if m.deterministic else (0, 1, 2))]


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    return build_leaderboard("sets", PLAN, trials())


def test_rows_have_recall_and_ndcg_of_sets_in_the_order_of_recall_20(board: Leaderboard) -> None:
    (section,) = board.sections
    assert board.primaries == ("recall@20",)
    assert [row.label for row in section.rows] == ["sasrec_ce_all", "item_knn", "popularity"]
    for row, model in zip(section.rows, MODELS[::-1], strict=True):
        seeds = [record.seed for record in row.records]
        assert tuple(row.means) == metric_names("train")
        for name, mean in row.means.items():
            by_seed = [np.mean(slow_values(name, set_ranks(model, seed))) for seed in seeds]
            assert mean == pytest.approx(np.mean(by_seed), abs=1e-12)


def test_differences_are_tested_in_recall_20_of_users(board: Leaderboard) -> None:
    family = board.sections[0].family
    assert family is not None
    sides = [
        np.array([slow_values("recall@20", set_ranks(model, seed)) for seed in seeds])
        for model, seeds in ((SASREC, (0, 1, 2)), (KNN, (0,)))
    ]
    expected = contrast(sides[0], sides[1], deterministic_b=True)
    found = family.contrasts["sasrec_ce_all", "item_knn"]
    assert (found.est, found.p) == pytest.approx((expected.est, expected.p))


def test_page_shows_recall_and_says_what_is_masked(board: Leaderboard) -> None:
    headings = [heading for heading, _ in accuracy_columns(board.sections[0])]
    shown = ["Recall@5", "NDCG@5", "Recall@10", "NDCG@10", "Recall@20", "NDCG@20"]
    against = "Recall@20 against `item_knn`, % [95 %]"
    assert headings[1:7] == shown
    assert against in headings
    page = render_markdown(board)
    for text in (
        " Recall and NDCG of each user's set of held-out items; training items are masked, "
        "validation items are not.\n",
        "- Means over all users and seeds, ±",
        "- Tier: a shared rank by Recall@20.",
        "- Sets of held-out items: Recall@k is the share",
        " in Recall@20 would be found",
    ):
        assert text in page
    for text in ("HR@", "MRR", "test targets and seeds", "NDCG@10 would"):
        assert text not in page


def test_nothing_masked_is_said_too() -> None:
    record, ranks = trial(KNN, 0)
    open_protocol = {**record.protocol, "mask_history": False}
    found = build_leaderboard("sets", PLAN, [(replace(record, protocol=open_protocol), ranks)])
    assert "set of held-out items; no item is masked." in render_markdown(found)


def test_exports_mark_recall_20(board: Leaderboard) -> None:
    lines = list(csv.DictReader(io.StringIO(render_csv(board))))
    sasrec = [line for line in lines if line["method"] == "sasrec_ce_all"]
    assert [line["metric"] for line in sasrec] == list(metric_names("train"))
    assert [line["metric"] for line in sasrec if line["p_holm"]] == ["recall@20"]
    content = json.loads(render_json(board))
    assert content["metric"] == "recall@20"
    assert "metric" not in content["datasets"][0]


def test_published_figures_are_recall_and_ndcg_at_20() -> None:
    figures = [FIGURE | {"metric": name} for name in ("recall@20", "ndcg@20", "recall@10")]
    model = replace(KNN, published=tuple(figures))
    found = build_leaderboard("sets", PLAN, trials((POPULARITY, model)))
    page = render_markdown(found)
    assert "| published Recall@20 | published NDCG@20 |" in page
    assert "Published Recall@20 and NDCG@20 of `item_knn`: A Paper (2025), table 2." in page
    (row,) = (row for row in found.sections[0].rows if row.label == "item_knn")
    assert f"| 0.5000 ({100 * (row.means['recall@20'] / 0.5 - 1):+.1f} %) |" in page


def test_published_ranks_alone_give_the_same_page(board: Leaderboard, tmp_path: Path) -> None:
    pages = publish_results(trials(), "sets", tmp_path, PLAN)
    assert pages[0].read_text("utf-8") == render_markdown(board)


def test_board_of_both_kinds_names_both_metrics() -> None:
    ranks = set_ranks(ORACLE, 0)
    first = np.unique(ranks["user"], return_index=True)[1]
    one = {name: values[first] for name, values in ranks.items()}
    ordinary: list[Result] = [
        (fake_record(model, "beauty", 0, one["rank"]), {**one}) for model in (KNN, POPULARITY)
    ]
    found = build_leaderboard("both", PLAN, [*ordinary, *trials()])
    page = render_markdown(found)
    assert "a shared rank by NDCG@10 or Recall@20." in page
    assert "Means over all test targets (users, where their held-out items are a set) and" in page
    assert page.count("Recall and NDCG of each user's set") == 1
    content = json.loads(render_json(found))
    assert content["metric"] == "ndcg@10"
    assert [section.get("metric") for section in content["datasets"]] == [None, "recall@20"]


def test_record_of_other_metrics_than_those_of_sets_is_refused() -> None:
    record, ranks = trial(KNN, 0)
    pooled = fake_record(KNN, "yelp-cf", 0, set_ranks(KNN, 0)["rank"]).metrics
    with pytest.raises(RequestError, match=r"recorded ndcg@5 .* run the trial again"):
        build_tables([(replace(record, metrics=pooled), ranks)])


def test_noise_costs_recall_20_of_users() -> None:
    clean, noisy = set_ranks(KNN, 0), set_ranks(POPULARITY, 0)
    setting = {"protocol": "test", "kind": "swap", "rate": 0.1, "rounding": "floor", "seed": 0}
    entry = {**setting, "share": 0.1, "metrics": slow_means(noisy)}
    record, _ = trial(KNN, 0, noise=[entry])
    results: list[Result] = [(record, {**clean, "noise": noisy["rank"][None]})]
    found = build_leaderboard("sets", PLAN, results)
    (study,) = found.sections[0].noise
    expected = np.mean(slow_values("recall@20", noisy))
    assert study.losses[0].mean == pytest.approx(expected, abs=1e-12)
    assert study.clean["item_knn"] == pytest.approx(np.mean(slow_values("recall@20", clean)))
    assert "swap; Recall@20, and its loss" in render_markdown(found)
    entry["metrics"] = slow_means(clean)
    with pytest.raises(RequestError, match=r"swap 0\.1: recorded recall@5"):
        build_tables(results)


def test_comparison_is_in_the_primary_metric_unless_asked_for(tmp_path: Path) -> None:
    publish_results(trials(), "sets", tmp_path, PLAN)
    folder = tmp_path / "ranks" / "sets"
    (own,) = compare_labels(folder, "item_knn", "popularity")
    assert own == compare_labels(folder, "item_knn", "popularity", "recall@20")[0]
    (other,) = compare_labels(folder, "item_knn", "popularity", "recall@10")
    expected = np.mean(slow_values("recall@10", set_ranks(KNN, 0)))
    assert other.metric == "recall@10"
    assert other.contrast.mean_a == pytest.approx(expected)
    assert "yelp-cf, recall@20\n" in render_comparisons([own])
    assert render_comparisons([other], "recall@10").startswith("recall@10, A against B")
    with pytest.raises(RequestError, match="no metric 'hit_rate@10' of sets"):
        compare_labels(folder, "item_knn", "popularity", "hit_rate@10")
