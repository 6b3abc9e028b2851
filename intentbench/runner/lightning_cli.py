"""`intentbench fit|validate|test|predict`: one model, by LightningCLI's own conventions."""

import argparse
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.models.base import Recommender
from intentbench.runner.arguments import allow_imports
from intentbench.runner.plugin import import_plugin
from intentbench.runner.recommend import read_weights


class SuiteCLI(LightningCLI):
    """LightningCLI that fills in what the data says, and reads the `config.yaml` of a trial."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the sizes of the data to the method; accept a trial's own block."""
        parser.add_argument("--trial", type=dict, default={}, help="written by `intentbench run`")
        for name in ("n_items", "n_users"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Take no argument from a checkpoint: the configuration says all, the file has weights."""


def run_lightning(arguments: Sequence[str]) -> None:
    """Run a subcommand of LightningCLI.

    Args:
        arguments: "fit", "validate", "test" or "predict", then LightningCLI's options.

    Raises:
        RequestError: an option, a name or a type is wrong; or so is the checkpoint.
        SystemExit: after `--help` and `--print_config`.
    """
    allow_imports()
    _import_plugins(arguments)
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    strict = {"exit_on_error": False}
    try:
        SuiteCLI(
            Recommender,
            SequenceDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"num_sanity_val_steps": 0},
            parser_kwargs={
                **strict,
                **dict.fromkeys(("fit", "validate", "test", "predict"), strict),
            },
            args=list(arguments),
        )
    except ArgumentError as error:
        raise RequestError(f"{arguments[0]}: {_fault(error.message)}") from None
    except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
        _blame_checkpoint(arguments, error)
        raise


def _fault(message: str) -> str:
    """What jsonargparse complains of; of a class that is none, what is wanted in its place."""
    found = re.search(r'Parser key "(model|data)".*Given value: (\S+)', message, re.DOTALL)
    if found is None:
        return message
    examples = {
        "model": "intentbench.models.sasrec.SASRec",
        "data": "datamodules.sequence.SequenceDataModule",
    }
    example = examples[found[1]]
    return f"--{found[1]} {found[2]}: no class of that name; give its whole path, as in {example}"


def _blame_checkpoint(arguments: Sequence[str], error: Exception) -> None:
    """Refuse a checkpoint that is why a run failed.

    Only afterwards: what Lightning can read, another reader must not refuse.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--ckpt_path", type=Path)
    file = parser.parse_known_args(arguments)[0].ckpt_path
    if file is None or not file.is_file():
        return
    read_weights(file)
    if str(error).startswith("Error(s) in loading state_dict"):
        raise RequestError(
            f"{file}: its weights are not those of the method that is configured; give the "
            "config.yaml beside the checkpoint, or another checkpoint"
        ) from error


def _import_plugins(arguments: Sequence[str]) -> None:
    """Import the plugin that a trial's `config.yaml` names: its class path must be known."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-c", "--config", action="append", type=Path, default=[])
    for file in parser.parse_known_args(arguments)[0].config:
        if not file.is_file():
            raise RequestError(f"{file}: no such configuration")
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise RequestError(f"{file}: no YAML ({reason}); give a trial's config.yaml") from None
        if not isinstance(config, dict):
            raise RequestError(f"{file}: holds no configuration; give a trial's config.yaml")
        trial = config.get("trial")
        if isinstance(trial, dict) and (plugin := trial.get("plugin")):
            import_plugin(Path(plugin))
