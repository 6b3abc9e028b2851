"""What methods have in common that read texts."""

from collections.abc import Mapping
from typing import Any

from datamodules.prepared import PreparedDataset
from intentbench.models.takes import TakesDataset
from intentbench.text.nodes import describe_texts


class TakesTexts(TakesDataset):
    """A method with the arguments `text` and `profile_width`."""

    @classmethod
    def reads(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> str:
        """The source of its texts, see `intentbench.text.nodes.describe_texts`."""
        return describe_texts(arguments["text"], dataset, arguments["profile_width"])
