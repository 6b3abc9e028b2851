"""What methods have in common that read more of a dataset than batches hold."""

from collections.abc import Mapping
from typing import Any

from datamodules.prepared import PreparedDataset


class TakesDataset:
    """A method that looks things up in the dataset: events, texts.

    The runner calls `check` and `reads` before the first trial, `take` before it scores outside a
    Trainer.
    """

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset that lacks what these arguments ask for.

        Args:
            dataset: prepared.
            arguments: all arguments of the method.

        Raises:
            RequestError: it does.
        """

    @classmethod
    def reads(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> str:
        """What it reads besides the prepared data: part of a trial's name, and of its page.

        Args:
            dataset: prepared.
            arguments: as of `check`, which has passed them.

        Returns:
            A line; "" where that is nothing.
        """
        return ""

    def take(self, dataset: PreparedDataset) -> None:
        """Look up what the dataset knows.

        Raises:
            RequestError: it lacks what the arguments ask for.
        """
        raise NotImplementedError
