"""Honest toys pass every check, and each offender fails its own."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.contracts import test_card, test_end_to_end, test_scores, test_training
from intentbench.contracts.subject import Subject
from intentbench.models.base import Recommender
from tests.contracts import toys

Check = Callable[..., None]

GIVEN = {"subject", "tmp_path"}
"""Checks that ask for more need all methods at once; see test_plugin.py and test_processes.py."""


def checks() -> list[Check]:
    return [
        function
        for module in (test_card, test_scores, test_training, test_end_to_end)
        for name, function in vars(module).items()
        if name.startswith("test_") and {*inspect.signature(function).parameters} <= GIVEN
    ]


def marks(check: Check) -> list[pytest.Mark]:
    found: list[pytest.Mark] = getattr(check, "pytestmark", [])
    return [mark for mark in found if mark.name == "slow"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return load_prepared(prepare("synthetic-tiny", cache=tmp_path_factory.mktemp("cache")))


def call(check: Check, subject: Subject, folder: Path) -> None:
    names = inspect.signature(check).parameters
    check(**{"subject": subject, **({"tmp_path": folder} if "tmp_path" in names else {})})


@pytest.mark.parametrize("key", toys.METHODS)
@pytest.mark.parametrize(
    "check", [pytest.param(check, marks=marks(check), id=check.__name__) for check in checks()]
)
def test_honest_method_passes(
    check: Check, key: str, data: PreparedDataset, tmp_path: Path
) -> None:
    call(check, Subject(key, toys.METHODS[key], data), tmp_path)


OFFENDERS: list[tuple[type[Recommender], Any]] = [
    (toys.PerCent, test_card.test_card_is_complete_and_agrees_with_the_class),
    (toys.Misspelt, test_card.test_file_key_and_class_have_one_spelling),
    (toys.Untyped, test_card.test_unknown_and_ill_typed_arguments_are_refused),
    (toys.DeadArgument, test_card.test_every_argument_changes_something),
    (toys.ScoresPadding, test_scores.test_scores_are_finite_and_leave_padding_out),
    (toys.NothingKnown, test_scores.test_scores_are_finite_and_leave_padding_out),
    (toys.RecommendsHistory, test_scores.test_predictions_are_items_that_the_user_has_not_had),
    (toys.BatchMean, test_scores.test_user_alone_scores_as_in_a_batch),
    (toys.ReadsPadding, test_scores.test_user_alone_scores_as_in_a_batch),
    (toys.ReadsPadding, test_scores.test_trimmed_batch_scores_as_padded),
    (toys.PaddedLoss, test_scores.test_trimmed_batch_scores_as_padded),
    (toys.UserRow, test_scores.test_order_of_users_is_free),
    (toys.SeesTarget, test_scores.test_scores_do_not_see_the_target_or_what_follows),
    (toys.CountsHeldOut, test_scores.test_scores_do_not_see_the_target_or_what_follows),
    (toys.SeesLaterInputs, test_scores.test_states_do_not_see_later_inputs),
    (toys.DrawsWhileScoring, test_scores.test_scoring_is_pure),
    (toys.ChangesBatch, test_scores.test_scoring_is_pure),
    (toys.ChangesBatch, test_scores.test_loss_leaves_the_batch_alone),
    (toys.CountsCalls, test_scores.test_scoring_is_pure),
    (toys.UnusedParameter, test_training.test_every_trained_parameter_gets_a_finite_gradient),
    (toys.InfiniteGradient, test_training.test_every_trained_parameter_gets_a_finite_gradient),
    (toys.FrozenInName, test_training.test_every_trained_parameter_gets_a_finite_gradient),
    (toys.SumsLoss, test_training.test_first_loss_is_near_its_closed_form),
    (toys.LearnsNothing, test_training.test_training_beats_popularity),
    (toys.Unseeded, test_training.test_seed_determines_ranks),
    (toys.IgnoresSeed, test_training.test_seed_determines_ranks),
    (toys.Accumulates, test_training.test_second_fit_equals_the_first),
    (toys.AnnealsOutsideState, test_training.test_second_fit_equals_the_first),
    (toys.AnnealsOutsideState, test_training.test_resumed_training_equals_uninterrupted),
    (toys.OutsideState, test_training.test_checkpoint_holds_all_that_scores_need),
]


@pytest.mark.parametrize(
    ("cls", "check"), OFFENDERS, ids=lambda value: value.__name__.removeprefix("test_")
)
def test_offender_is_caught(
    cls: type[Recommender], check: Check, data: PreparedDataset, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        call(check, Subject("offender", cls, data), tmp_path)


def test_every_check_of_one_process_has_an_offender() -> None:
    without = {
        test_training.test_deterministic_sequences_are_learnt_by_heart,  # slow
        test_card.test_arguments_survive_a_round_trip,  # holds wherever a class can be built
        test_end_to_end.test_plain_trainer_does_it_all,  # the base class does it
    }
    assert {check for _, check in OFFENDERS} | without == set(checks())
