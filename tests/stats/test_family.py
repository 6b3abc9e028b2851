from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from intentbench.stats.components import Values
from intentbench.stats.contrast import contrast
from intentbench.stats.family import Family, compare_all


def scores(means: dict[str, float], n_seeds: int = 3, n_users: int = 4_000) -> dict[str, Values]:
    generator = np.random.default_rng(3)
    users = generator.normal(0, 0.2, n_users)
    return {
        label: mean + users + generator.normal(0, 0.1, (n_seeds, n_users))
        for label, mean in means.items()
    }


VALUES = scores({"a": 0.50, "b": 0.503, "c": 0.45, "d": 0.20})


def with_p(family: Family, p: dict[tuple[str, str], float | None]) -> Family:
    return replace(family, adjusted=p | {(b, a): value for (a, b), value in p.items()})


def test_family_is_holm_over_all_pairs() -> None:
    family = compare_all(VALUES)
    assert family.labels == ("b", "a", "c", "d")
    pairs = list(combinations(family.labels, 2))
    raw = [contrast(VALUES[a], VALUES[b]).p for a, b in pairs]
    assert [family.adjusted[pair] for pair in pairs] == pytest.approx(
        list(multipletests(raw, method="holm")[1])
    )
    assert family.n_tests == 6


def test_family_of_a_reference_is_smaller() -> None:
    family = compare_all(VALUES, reference="c")
    others = ["b", "a", "d"]
    raw = [contrast(VALUES[a], VALUES["c"]).p for a in others]
    expected = multipletests(raw, method="holm")[1]
    assert [family.adjusted[a, "c"] for a in others] == pytest.approx(list(expected))
    assert [family.adjusted["c", a] for a in others] == pytest.approx(list(expected))
    assert family.adjusted["a", "b"] is None
    assert family.n_tests == 3
    assert family.mark("a", "b") == ""
    assert family.mark("a", "c") == "^"
    assert family.tiers == dict.fromkeys("abcd")  # they would need all pairs
    resolution = family.resolution()
    assert resolution is not None
    assert resolution.pairs == 3


def test_family_may_be_corrected_for_exploring() -> None:
    family = compare_all(VALUES, method="bh")
    pairs = list(combinations(family.labels, 2))
    raw = [contrast(VALUES[a], VALUES[b]).p for a, b in pairs]
    assert [family.adjusted[pair] for pair in pairs] == pytest.approx(
        list(multipletests(raw, method="fdr_bh")[1])
    )


def test_runner_up_is_the_second_by_mean() -> None:
    assert compare_all(VALUES).runner_up == ("b", "a")
    assert compare_all({"a": VALUES["a"]}).runner_up is None


def test_family_leaves_out_pairs_without_known_seeds() -> None:
    values = VALUES | {"e": VALUES["c"][:1] + 0.001, "f": VALUES["c"][:1] - 0.001}
    family = compare_all(values, deterministic=["f"])
    assert family.adjusted["e", "f"] is None  # one seed against none: nobody to borrow from
    assert family.adjusted["e", "a"] is not None
    assert family.n_tests == 14
    assert family.mark("e", "f") == ""
    assert family.mark("f", "e") == ""


def test_tiers_are_ties_with_the_first() -> None:
    family = with_p(
        compare_all(VALUES),
        {
            ("b", "a"): 0.20,
            ("b", "c"): 0.04,
            ("a", "c"): 0.30,  # not separated, but a does not open the tier
            ("b", "d"): 0.01,
            ("a", "d"): 0.01,
            ("c", "d"): 0.05,  # alpha itself does not separate
        },
    )
    assert family.tiers == {"b": 1, "a": 1, "c": 2, "d": 2}


def test_models_of_one_seed_have_a_tier_only_where_all_could_be_tested() -> None:
    """Else a lone seed would open a tier for what it cannot be told from, or stand in one beneath
    a model that nobody tested it against."""
    values = VALUES | {"e": VALUES["b"][:1] + 0.001}
    family = compare_all(values)
    assert family.lone == {"e"}
    assert all(family.adjusted[label, "e"] is not None for label in "abcd")
    assert None not in family.tiers.values()
    for more in ({"f": VALUES["c"][:1] - 0.001}, {"g": VALUES["c"][:1] - 0.001}):
        family = compare_all(values | more, deterministic=["g"])
        tiers = dict(family.tiers)
        assert tiers.pop("e") is None
        assert tiers.pop("f", None) is None
        tested = compare_all({label: (values | more)[label] for label in tiers}, ["g"])
        # fewer tests are corrected less; here nothing stands on the edge
        assert tiers == tested.tiers
        assert tiers["b"] == 1


def test_a_model_that_cannot_be_tested_has_no_tier() -> None:
    values = {label: value[:1] for label, value in VALUES.items()}
    family = compare_all(values)
    assert family.tiers == dict.fromkeys("abcd")
    assert family.n_tests == 0
    assert family.resolution() is None


def test_marks() -> None:
    family = compare_all(VALUES)
    p = dict.fromkeys(combinations(family.labels, 2), 0.01) | {("a", "c"): 0.05}
    family = with_p(family, {**p})
    assert family.mark("b", "d") == "^"
    assert family.mark("d", "b") == "v"
    assert family.mark("a", "c") == "="
    assert abs(family.contrasts["b", "a"].relative or 1) < 0.01
    assert family.mark("b", "a") == "~"
    assert family.mark("a", "a") == ""


def test_resolution_is_the_median_over_pairs() -> None:
    family = compare_all(VALUES)
    found = family.resolution()
    assert found is not None
    expected = [family.contrasts[pair].resolution for pair in combinations(family.labels, 2)]
    assert found.difference == pytest.approx(np.median(np.array(expected, dtype=np.float64)))
    assert found.pairs == 6
    assert 0 < found.users_share <= 1
