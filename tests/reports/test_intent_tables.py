from dataclasses import replace
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import pytest

from intentbench.reports.exports import render_csv
from intentbench.reports.intent_tables import intent_means, intent_tables
from intentbench.reports.leaderboard import Leaderboard, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.results.record import parse_record
from tests.reports.fake_runs import GRU, KNN, SASREC, FakeModel, fake_ranks, fake_record

if TYPE_CHECKING:
    from intentbench.reports.cells import Result

ACCURACY = {"sasrec_ce_all": (0.5, 0.6), "gru4rec": (0.4, 0.7)}


def predicted(model: FakeModel, seed: int) -> dict[str, float]:
    if model.label not in ACCURACY:
        return {}
    value = ACCURACY[model.label][seed]
    return {
        "item/ndcg@10_untied": 0.1,
        "action/targets": 300.0,
        "action/accuracy": value,
        "action/accuracy_majority": 0.3,
        "action/accuracy_last": 0.35,
        "action/accuracy_untied": 0.2,
        "action/accuracy_majority_untied": 0.25,
        "action/nll": 1 - value,
        "action/nll_majority": 0.9,
        "genre/average_precision": value / 2,
    }


@pytest.fixture
def board() -> Leaderboard:
    results: list[Result] = []
    for model in (KNN, SASREC, GRU):
        for seed in (0,) if model.deterministic else (0, 1):
            ranks: dict[str, Any] = dict(fake_ranks(model, "beauty", seed, 50))
            record = fake_record(model, "beauty", seed, ranks["rank"])
            results.append((replace(record, intents=predicted(model, seed)), ranks))
    return build_leaderboard("board", Plan(), results)


def test_a_table_an_intent_with_the_simple_predictors_below(board: Leaderboard) -> None:
    tables = dict(intent_tables(board.sections[0]))
    assert list(tables) == ["action", "genre"]
    columns = dict(tables["action"])
    assert list(columns) == ["model", "accuracy", "nll"]
    labels = [label.strip("`") for label in columns["model"]]
    assert labels == [
        "sasrec_ce_all",
        "gru4rec",
        "*shares of training*",
        "*label of the event before*",
    ]
    spread = f"{stdev(ACCURACY['gru4rec']):.4f}"
    assert columns["accuracy"] == [
        f"**{mean(ACCURACY['sasrec_ce_all']):.4f}** ± {stdev(ACCURACY['sasrec_ce_all']):.4f}",
        f"**{mean(ACCURACY['gru4rec']):.4f}** ± {spread}",
        "0.3000",
        "0.3500",
    ]
    assert columns["nll"][2:] == ["0.9000", "-"], "a label repeated has no likelihood"


def test_means_are_over_seeds(board: Leaderboard) -> None:
    (row,) = [row for row in board.sections[0].rows if row.label == "gru4rec"]
    value, deviation = intent_means(row)["action/accuracy"]
    assert value == pytest.approx(0.55)
    assert deviation == pytest.approx(stdev((0.4, 0.7)))


def test_page_and_csv_have_them_and_rows_without_any_are_left_out(board: Leaderboard) -> None:
    page = render_markdown(board)
    _, _, table = page.partition("Prediction of the next action:")
    assert "item_knn" not in table.partition("\n\n- ")[0]
    assert "beauty,gru4rec,action/accuracy,0.550000,0.212132,2" in render_csv(board)


def test_a_record_keeps_them_and_older_records_have_none() -> None:
    ranks = fake_ranks(GRU, "beauty", 0, 50)
    record = replace(fake_record(GRU, "beauty", 0, ranks["rank"]), intents={"action/nll": 1.5})
    assert parse_record(record.to_json()).intents == {"action/nll": 1.5}
    older = record.to_json().replace('"intents": {\n  "action/nll": 1.5\n },', "")
    assert parse_record(older).intents == {}
