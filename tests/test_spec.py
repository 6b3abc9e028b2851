from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.errors import RequestError
from intentbench.spec import BenchmarkSpec, load_spec

PLUGIN = Path(__file__).parent / "runner" / "toy_plugin.py"
GOOD: dict[str, Any] = {
    "name": "mine",
    "datasets": ["synthetic-tiny"],
    "models": {
        "counts": {},
        "toy": {"width": 4, "scales": [1, 2]},
        "toy_wide": {"method": "toy", "training": {"max_epochs": 2}, "data": {"window": 9}},
    },
    "seeds": [0, 1],
    "training": {"max_epochs": 3, "patience": 2},
    "data": {"batch_size": 32},
    "reference": "toy",
    "timeout": 60,
}


def load(tmp_path: Path, raw: Any, **options: Any) -> BenchmarkSpec:
    path = tmp_path / "spec.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return load_spec(path, plugin=PLUGIN, **options)


def test_spec_is_resolved_in_full(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    counts, toy, wide = spec.entrants
    assert (spec.name, spec.title, spec.seeds, spec.timeout) == ("mine", "mine", (0, 1), 60.0)
    assert toy.arguments == {"width": 4, "scales": [1.0, 2.0], "fault": ""}
    assert wide.arguments == {"width": 8, "scales": [1.0], "fault": ""}
    assert (toy.data["window"], wide.data["window"], wide.data["batch_size"]) == (50, 9, 32)
    assert (toy.training.max_epochs, wide.training.max_epochs, wide.training.patience) == (3, 2, 2)
    assert (spec.seeds_of(counts), spec.seeds_of(toy), spec.size) == ((0,), (0, 1), 5)


def test_values_can_be_set_by_dotted_path(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        GOOD,
        overrides=[
            "training.max_epochs=7",
            "models.toy.scales=[3, 4]",
            "models.counts.data.window=3",
        ],
    )
    counts, toy, _ = spec.entrants
    assert toy.training.max_epochs == 7
    assert toy.arguments["scales"] == [3.0, 4.0]
    assert counts.data["window"] == 3


def test_a_name_or_title_without_a_value_is_none(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD, overrides=["name=", "title="])
    assert (spec.name, spec.title) == ("spec", "spec")


def test_parts_can_be_chosen(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD, models=["counts"], seeds=[5], datasets=["synthetic-tiny"])
    assert [entrant.label for entrant in spec.entrants] == ["counts"]
    assert spec.seeds == (5,)
    assert spec.reference == ""
    assert spec.stated.labels == ("counts", "toy", "toy_wide")
    assert (spec.stated.seeds, spec.stated.reference) == ((0, 1), "toy")


def change(path: str, value: Any) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split("/")
    block = raw
    for parent in parents:
        block = block[parent]
    block[last] = value
    return raw


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (change("seed", [1]), ["unknown key 'seed'", "did you mean 'seeds'?"]),
        (change("datasets", ["synthetik-tiny"]), ["datasets", "'synthetic-tiny'?"]),
        (change("datasets", []), ["datasets", "list of names"]),
        (change("datasets", ["synthetic-tiny"] * 2), ["datasets", "listed twice"]),
        (change("datasets", [{"own": {"raeder": "csv"}}]), ["datasets.own", "raeder", "reader"]),
        (change("models/toi", None), ["models.toi", "unknown method 'toi'", "did you mean 'toy'?"]),
        (change("models/toy/method", "nothing"), ["models.toy", "'nothing'", "allowed:"]),
        (change("models/toy/witdh", 3), ["models.toy", "'witdh'", "did you mean 'width'?"]),
        (change("models/toy/width", "wide"), ["models.toy", "width", "int", "wide"]),
        (change("models/toy/fault", "explode"), ["models.toy", "fault", "raise", "explode"]),
        (change("models/toy/width", None), ["models.toy: width: found null", "default"]),
        (change("models/toy/scales", [1, "x"]), ["models.toy", "scales", "float", "x"]),
        (change("models/toy/window", 3), ["models.toy", "'window'"]),
        (change("models/toy/n_items", 3), ["models.toy", "'n_items'"]),
        (change("models/a:b", {"method": "toy"}), ["models.a:b", "cannot name a folder"]),
        (change("models/toy", 3), ["models.toy", "keys and values", "3"]),
        (change("data", {"windw": 3}), ["data", "'windw'", "did you mean 'window'?"]),
        (change("data", {"window": "x"}), ["data", "window", "int"]),
        (change("data", {"seed": 3}), ["data", "'seed'"]),
        (change("data", {1: 2}), ["data", "key 1 is no text"]),
        (change("models/toy", {1: 2}), ["models.toy", "key 1 is no text"]),
        (change("models/toy/preset", ["a"]), ["models.toy.preset", "no preset ['a']"]),
        (change("models/oracle", {"method": "toy"}), ["models.oracle", "ceiling"]),
        (change("training", {"max_epochs": None}), ["training: max_epochs: found null"]),
        (change("seeds", [2**32]), ["seeds", "from 0 to 2^32 - 1"]),
        (change("timeout", float("nan")), ["timeout", "seconds"]),
        (change("memory", "0.0000001MiB"), ["memory", "size such as"]),
        ("models: {a: {}, a: {}}", ["no YAML", "key 'a' is there twice"]),
        ("title: 2024-13-13", ["no YAML", "month"]),
        ("[" * 3000, ["nested too deeply"]),
        (change("data", {"batch_size": 0}), ["data, for models.counts: batch_size", "at least 1"]),
        (change("training", {"epochs": 3}), ["training", "'epochs'", "max_epochs"]),
        (change("training", {"patience": 0}), ["training.patience", "at least 1"]),
        (change("training", {"monitor": "ndcg@11"}), ["training.monitor", "'ndcg@10'?"]),
        (change("training", {"monitor": "recall@30"}), ["training.monitor", "'recall@20'"]),
        (change("training", {"precision": "bf16"}), ["training.precision", "'bf16-true'?"]),
        (change("training", [3]), ["training", "keys and values"]),
        (change("seeds", []), ["seeds", "at least one whole number"]),
        (change("seeds", [0, "1"]), ["seeds", "whole number"]),
        (change("seeds", 3), ["seeds", "whole number"]),
        (change("reference", "toys"), ["reference", "did you mean 'toy'?"]),
        (change("timeout", -1), ["timeout", "seconds"]),
        (change("name", "../x"), ["name", "cannot name a folder"]),
        ("models: [a\n  b: ]", ["no YAML: line 2, column 4: expected ','"]),
        (change("models", {}), ["models: expected rows, as in {popularity: {}"]),
        (change("models", ["toy"]), ["models: expected rows", "found ['toy']"]),
        ("", ["keys and values"]),
        ("- a", ["keys and values"]),
    ],
)
def test_bad_spec_is_one_line_that_names_file_and_key(
    tmp_path: Path, raw: Any, parts: list[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        load(tmp_path, raw)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "spec.yaml"))
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"overrides": ["training.max_epochs"]}, "expected key=value"),
        ({"overrides": ["name.x=1"]}, "keys and values"),
        ({"overrides": ["training.max_epochs=a"]}, "max_epochs"),
        ({"overrides": ["seeds=[1"]}, "no YAML"),
        ({"models": ["tou"]}, "did you mean 'toy'?"),
        ({"models": []}, "--models: nothing is chosen"),
        ({"datasets": []}, "--datasets: nothing is chosen"),
        ({"datasets": ["synthetic"]}, "--datasets"),
        ({"seeds": [-1]}, "--seeds: expected at least one whole number from 0"),
    ],
)
def test_bad_option_is_one_line(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        load(tmp_path, GOOD, **options)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_allowed_names_no_help_of_an_option(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        load(tmp_path, change("data/windwo", 3))
    assert "did you mean 'window'? allowed: " in str(caught.value)
    assert "help" not in str(caught.value)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        load_spec(tmp_path / "none.yaml")


def test_class_paths_of_strangers_are_refused(tmp_path: Path) -> None:
    plugin = tmp_path / "callable_plugin.py"
    plugin.write_text(
        "from collections.abc import Callable\n"
        "from typing import Any\n"
        "from intentbench.models.base import Recommender\n"
        "from intentbench.models.card import Card\n"
        "class Calls(Recommender):\n"
        "    CARD = Card(title='Calls', paper='', code='', tiny={})\n"
        "    def __init__(self, n_items: int, n_users: int, f: Callable[..., Any] | None = None):\n"
        "        super().__init__(n_items, n_users)\n"
    )
    path = tmp_path / "spec.yaml"
    models = {"callable_plugin": {"f": "os.system"}}
    path.write_text(yaml.safe_dump({"datasets": ["synthetic-tiny"], "models": models}))
    with pytest.raises(RequestError, match="callable_plugin"):
        load_spec(path, plugin=plugin)
    assert load_spec(path, overrides=["models.callable_plugin.f=null"], plugin=plugin).size == 5


def _with_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(text)


def test_a_methods_file_gives_presets_and_what_datasets_need(tmp_path: Path) -> None:
    _with_settings(
        tmp_path,
        "presets: {narrow: {width: 2}, plain: }\ndatasets: {beauty: {width: 5, scales: [9]}}\n",
    )
    models = {
        "toy": {},
        "narrow": {"method": "toy", "preset": "narrow"},
        "own": {"method": "toy", "preset": "narrow", "width": 3},
    }
    spec = load(tmp_path, {**GOOD, "models": models})
    rows = {entrant.label: entrant for entrant in spec.entrants}
    toy, narrow, own = rows["toy"], rows["narrow"], rows["own"]
    assert [row.arguments["width"] for row in (toy, narrow, own)] == [8, 2, 3]
    assert [row.arguments_on("beauty")["width"] for row in (toy, narrow, own)] == [5, 2, 3]
    assert narrow.arguments_on("beauty")["scales"] == [9.0]
    assert narrow.arguments_on("toys") == narrow.arguments


@pytest.mark.parametrize(
    ("text", "preset", "message"),
    [
        ("presets: {narrow: {width: 2}}", "narow", "did you mean 'narrow'"),
        ("", "narrow", "there is none"),
        ("preset: {narrow: {width: 2}}", "narrow", "did you mean 'presets'"),
        ("presets: {narrow: 2}", "narrow", "expected keys and values"),
        ("presets: {narrow: {wide: 2}}", "narrow", "unknown argument 'wide'"),
        ("datasets: {beuty: {width: 2}}", None, "did you mean 'beauty'"),
        ("datasets: {beauty: {width: much}}", None, "toy.yaml: datasets.beauty"),
        ("datasets: {beauty: {layout: prefix}}", None, "the layout is chosen"),
        ("[", None, "no YAML"),
    ],
)
def test_wrong_settings_are_refused(
    tmp_path: Path, text: str, preset: str | None, message: str
) -> None:
    _with_settings(tmp_path, text)
    row = {"preset": preset} if preset else {}
    with pytest.raises(RequestError, match=message):
        load(tmp_path, {**GOOD, "models": {"toy": row}})


def test_what_holds_for_one_dataset_wins_over_all_and_a_row_over_both(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        """
        datasets: [synthetic, synthetic-tiny]
        models:
          popularity: {}
          narrow: {method: popularity, data: {window: 3}}
        data: {window: 20}
        per_dataset: {synthetic-tiny: {data: {window: 10, mask_history: false}}}
        """
    )
    popularity, narrow = load_spec(path).entrants
    assert popularity.data_on("synthetic")["window"] == 20
    assert popularity.data_on("synthetic-tiny")["window"] == 10
    assert narrow.data_on("synthetic-tiny")["window"] == 3
    kept = [row.data_on("synthetic-tiny")["mask_history"] for row in (popularity, narrow)]
    assert kept == [False, False]
    assert popularity.data_on("synthetic")["mask_history"] is True


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{beauty: {data: {window: 3}}}", "'beauty' is not in this benchmark"),
        ("{synthetic: {window: 3}}", "per_dataset.synthetic: unknown key 'window'"),
        ("{synthetic: {data: {windw: 3}}}", "unknown argument 'windw'"),
    ],
)
def test_what_means_nothing_for_one_dataset_is_refused(
    tmp_path: Path, block: str, message: str
) -> None:
    path = tmp_path / "spec.yaml"
    text = f"datasets: [synthetic]\nmodels: {{popularity: {{}}}}\nper_dataset: {block}\n"
    path.write_text(text)
    with pytest.raises(RequestError, match=message):
        load_spec(path)
