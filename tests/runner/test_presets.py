from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.errors import RequestError
from intentbench.contracts.data import planted_cycles
from intentbench.models import load_method
from intentbench.models.graph_text import TextGraphRecommender
from intentbench.runner.arguments import resolve_arguments
from intentbench.runner.presets import Preset, load_settings
from intentbench.spec import BenchmarkSpec, load_spec
from tests.runner.conftest import PLUGIN

NESTED = """
presets:
  narrow:
    width: 2
    scales: [1, 2]
    datasets:
      beauty: {scales: [3]}
      toys: {width: 4}
datasets:
  beauty: {width: 5, fault: slow}
  sports: {width: 6}
"""


def _spec(folder: Path, text: str, **row: Any) -> BenchmarkSpec:
    (folder / "models").mkdir()
    (folder / "models" / "toy.yaml").write_text(text)
    raw = {"name": "toys", "datasets": ["synthetic-tiny"], "models": {"toy": row}}
    (folder / "toys.yaml").write_text(yaml.safe_dump(raw))
    return load_spec(folder / "toys.yaml", plugin=PLUGIN)


def _arguments(spec: BenchmarkSpec, dataset: str) -> dict[str, Any]:
    (entrant,) = spec.entrants
    return entrant.arguments_on(dataset)


@pytest.mark.parametrize(
    ("dataset", "width", "scales", "fault"),
    [
        ("synthetic-tiny", 2, [1.0, 2.0], ""),  # the preset over the defaults
        ("sports", 2, [1.0, 2.0], ""),  # the preset over the dataset's
        ("toys", 4, [1.0, 2.0], ""),  # the preset's dataset over the preset
        ("beauty", 2, [3.0], "slow"),  # and values whole, beside what only the dataset says
    ],
)
def test_a_presets_datasets_win_over_it_there(
    tmp_path: Path, dataset: str, width: int, scales: list[float], fault: str
) -> None:
    found = _arguments(_spec(tmp_path, NESTED, preset="narrow"), dataset)
    assert (found["width"], found["scales"], found["fault"]) == (width, scales, fault)


def test_a_rows_own_arguments_win_over_a_presets_datasets(tmp_path: Path) -> None:
    spec = _spec(tmp_path, NESTED, preset="narrow", width=9, scales=[7])
    for dataset in ("synthetic-tiny", "beauty", "sports", "toys"):
        found = _arguments(spec, dataset)
        assert (found["width"], found["scales"]) == (9, [7.0])


def test_a_presets_datasets_are_those_of_its_rows_alone(tmp_path: Path) -> None:
    spec = _spec(tmp_path, NESTED)
    assert _arguments(spec, "toys")["width"] == 8
    assert _arguments(spec, "beauty")["width"] == 5


def test_mappings_replace_one_another_whole(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "around.yaml").write_text(
        "presets:\n"
        "  one: {inner: {width: 2, layers: 3}, datasets: {toys: {inner: {width: 4}}}}\n"
        "datasets: {toys: {inner: {keep: 1}}}\n"
    )
    settings = load_settings(tmp_path / "spec.yaml", "around")
    ((_, toys),) = settings.departures(settings.preset("one", "")).values()
    assert toys == {"inner": {"width": 4}}
    ((_, unasked),) = settings.departures(Preset()).values()
    assert unasked == {"inner": {"keep": 1}}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{beuty: {width: 2}}", "toy.yaml: presets.narrow: datasets: unknown dataset 'beuty'"),
        ("{beauty: {layout: prefix}}", "presets.narrow: datasets.beauty: the layout is chosen"),
        ("{beauty: 2}", "presets.narrow: datasets.beauty: expected keys and values"),
        ("2", "presets.narrow: datasets: expected keys and values"),
        ("{beauty: {wide: 2}}", "presets.narrow: datasets.beauty: unknown argument 'wide'"),
        ("{beauty: {width: much}}", "toy.yaml: presets.narrow: datasets.beauty"),
    ],
)
def test_wrong_datasets_of_a_preset_are_refused(tmp_path: Path, block: str, message: str) -> None:
    text = f"presets: {{narrow: {{datasets: {block}}}}}"
    with pytest.raises(RequestError) as caught:
        _spec(tmp_path, text, preset="narrow")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("method", ["rlmrec_con", "rlmrec_gen", "kar", "irllrec"])
def test_presets_of_add_ons_fit_their_base_methods_everywhere(method: str) -> None:
    cls = load_method(method)
    assert issubclass(cls, TextGraphRecommender)
    settings = load_settings(BENCHMARKS / "spec.yaml", method)
    assert len(settings.presets) >= 5
    for name, preset in settings.presets.items():
        assert name.startswith(preset.arguments["base"])
        blocks = [("", preset.arguments), *settings.departures(preset).values()]
        for _, arguments in blocks:
            given = {**arguments, "text": "gaussian"}
            resolved = resolve_arguments(cls, given, name, {"n_items": 1, "n_users": 1})
            cls.check(planted_cycles(), resolved)


def test_published_settings_depend_on_base_method_and_dataset() -> None:
    settings = load_settings(BENCHMARKS / "spec.yaml", "rlmrec_con")
    found = {
        (base, name): arguments
        for base in ("lightgcn", "sgl")
        for name, (_, arguments) in settings.departures(settings.preset(base, "")).items()
    }
    assert found["sgl", "yelp-cf"]["temperature"] == 1.0
    assert found["sgl", "amazon-movie"]["temperature"] == 0.5
    assert found["sgl", "amazon-movie"]["base_arguments"]["contrast_weight"] == 0.01
    assert found["lightgcn", "amazon-movie"]["weight"] == 1e-3
    assert ("lightgcn", "yelp-cf") not in found
