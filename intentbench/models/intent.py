"""What methods that model intent share: a view of their intents that tools can inspect."""

from dataclasses import dataclass

from torch import Tensor

from datamodules.types import SequenceBatch
from intentbench.models.base import GradientRecommender


@dataclass(frozen=True)
class Intents:
    """What a method takes for the intents behind T positions of users' sequences.

    Attributes:
        vectors: (T, D) the intent.
        states: (T, D) the behaviour that the sequence encoder saw, H.
        assignment: (T,) int64 number of the intent category, 0..K-1; None where the method has
            no categories.
        interests: (T, D) the stable interest beside the intent; None where the method has none.
        view_assignment: (T,) int64 category of the view that the method generates of the
            position; None where it generates none.
    """

    vectors: Tensor
    states: Tensor
    assignment: Tensor | None = None
    interests: Tensor | None = None
    view_assignment: Tensor | None = None


class IntentRecommender(GradientRecommender):
    """A method whose intents can be inspected."""

    def intents(self, batch: SequenceBatch) -> Intents:
        """The intents at the positions of the real targets of a batch of layout "all".

        Called in evaluation mode without gradients; needs nothing but what a checkpoint holds.
        """
        raise NotImplementedError
