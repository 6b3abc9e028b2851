"""What a configuration describes: method, data module, Trainer."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import instantiate_class

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from intentbench.models.base import Recommender
from intentbench.runner.arguments import construct
from intentbench.runner.callbacks import EpochWatch
from intentbench.runner.config import DATA_MODULES
from intentbench.runner.distributed import check_launched
from intentbench.runner.events import EVENTS
from intentbench.runner.plugin import import_plugin
from intentbench.runner.signs import SignWatch


def build_model(config: Mapping[str, Any]) -> Recommender:
    """The method that a configuration describes, untrained.

    Raises:
        RequestError: the class path names no method, or an argument does not fit.
    """
    if plugin := config.get("trial", {}).get("plugin"):
        import_plugin(Path(plugin))
    path = config["model"]["class_path"]
    module, _, name = path.rpartition(".")
    method = getattr(import_module(module), name, None)
    if not (isinstance(method, type) and issubclass(method, Recommender)):
        raise RequestError(f"{path}: no method; a method subclasses Recommender")
    model: Recommender = construct(method, config["model"]["init_args"])
    return model


def build_data(
    config: Mapping[str, Any], prepared: PreparedDataset | None = None
) -> SequenceDataModule:
    """The data module that a configuration describes.

    Args:
        config: of a trial.
        prepared: the dataset if it is open already; otherwise it is found by its name.
    """
    arguments = config["data"]["init_args"]
    module = DATA_MODULES[arguments["layout"]]
    return module(**{**arguments, "dataset": prepared or arguments["dataset"]})


def build_trainer(config: Mapping[str, Any], folder: Path, accelerator: str = "auto") -> Trainer:
    """The Trainer that a configuration describes, writing into a trial's folder.

    Args:
        config: of a trial.
        folder: gets events and the best checkpoint.
        accelerator: "cpu", "gpu" or "auto"; where a trial runs is no part of what it is.
    """
    settings = dict(config["trainer"])
    callbacks = [instantiate_class((), block) for block in settings.pop("callbacks")]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = str(folder.resolve())  # one name of a folder, however it is spelled
    logger = settings.pop("logger")
    events = {"save_dir": str(folder), "name": "", "version": EVENTS, "default_hp_metric": False}
    monitor = config["trial"]["training"]["monitor"]
    watches = [EpochWatch(folder, monitor), SignWatch(monitor)]
    plugins = [instantiate_class((), block) for block in settings.pop("plugins")]
    if strategy := settings.get("strategy"):
        check_launched()
        settings["strategy"] = instantiate_class((), strategy)
    return Trainer(
        **{**settings, "accelerator": accelerator},
        callbacks=[*callbacks, *watches],
        logger=instantiate_class((), {**logger, "init_args": {**logger["init_args"], **events}}),
        plugins=plugins,
        default_root_dir=folder,
    )
