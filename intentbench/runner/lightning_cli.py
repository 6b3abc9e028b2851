"""`intentbench fit|validate|test|predict`: one model, by LightningCLI's own conventions."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from datamodules.sequence import SequenceDataModule
from intentbench.models.base import Recommender
from intentbench.runner.arguments import allow_imports


class SuiteCLI(LightningCLI):
    """LightningCLI that fills in what the data says, and reads the `config.yaml` of a trial."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the sizes of the data to the method; accept a trial's own block."""
        parser.add_argument("--trial", type=dict, default={}, help="written by `intentbench run`")
        for name in ("n_items", "n_users"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")


def run_lightning(arguments: Sequence[str]) -> int:
    """Run a subcommand of LightningCLI.

    Args:
        arguments: "fit", "validate", "test" or "predict", then LightningCLI's options.

    Returns:
        0; a wrong request leaves through SystemExit with status 2.
    """
    allow_imports()
    defaults: dict[str, Any] = {"num_sanity_val_steps": 0}
    SuiteCLI(
        Recommender,
        SequenceDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=0,
        trainer_defaults=defaults,
        args=list(arguments),
    )
    return 0
