"""A trial and its `config.yaml`, which says all that is needed to run it alone."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import yaml

from datamodules.errors import RequestError
from datamodules.interactions import InteractionDataModule
from datamodules.rows import Layout
from datamodules.sequence import SequenceDataModule
from intentbench.results.store import CONFIG, trial_folder, write_atomic

DATA_MODULES: dict[Layout, type[SequenceDataModule]] = {
    "all": SequenceDataModule,
    "prefix": SequenceDataModule,
    "pair": InteractionDataModule,
}
"""The data module of each layout of training rows."""

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
"""Of numbers in training and test, by Lightning's names."""

UNSAID = ("processes", "accumulate", "compile")
"""Fields of `Training` that names, configurations and records leave out at their defaults: those of
trials made before there were any stay as they are."""


@dataclass(frozen=True)
class Training:
    """How long a method is trained, and how its best epoch is chosen.

    Attributes:
        max_epochs: epochs at most.
        patience: validations without improvement after which training stops.
        monitor: validation metric that chooses the epoch.
        validate_every: epochs between validations.
        precision: of Lightning's Trainer, one of `PRECISIONS`.
        processes: processes that share each batch, see `docs/distributed.md`; on GPUs as many of
            these.
        accumulate: batches whose gradients are averaged for one step of the optimiser.
        compile: put the loss through torch.compile.
    """

    max_epochs: int = 200
    patience: int = 10
    monitor: str = "ndcg@10"
    validate_every: int = 1
    precision: str = "32-true"
    processes: int = 1
    accumulate: int = 1
    compile: bool = False

    def settings(self) -> dict[str, Any]:
        """All fields, but for those of `UNSAID` that have their default."""
        defaults = {one.name: one.default for one in fields(self) if one.name in UNSAID}
        given = asdict(self)
        return {n: v for n, v in given.items() if n not in defaults or v != defaults[n]}

    def trainer(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer, as they stand in `config.yaml`.

        Workers are silent and log once an epoch; a checkpoint is written on improvement only.
        """
        monitor = {"monitor": f"val/{self.monitor}", "mode": "max"}
        best = {
            "filename": "best",
            "save_weights_only": True,
            "enable_version_counter": False,
        }
        settings: dict[str, Any] = {
            "accelerator": "auto",
            "devices": self.processes,
            "precision": self.precision,
            "max_epochs": self.max_epochs,
            "check_val_every_n_epoch": self.validate_every,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 0,
            "deterministic": "warn",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": _block("lightning.pytorch.loggers.TensorBoardLogger", save_dir="."),
            "callbacks": [
                _block("intentbench.runner.callbacks.UserRecall"),  # may be monitored: comes first
                _block(
                    "lightning.pytorch.callbacks.EarlyStopping",
                    **monitor,
                    patience=self.patience,
                    check_on_train_epoch_end=False,  # validations count, not epochs
                ),
                _block("lightning.pytorch.callbacks.ModelCheckpoint", **monitor, **best),
            ],
            # Lightning would otherwise take over a SLURM allocation that it runs inside.
            "plugins": [_block("lightning.pytorch.plugins.environments.LightningEnvironment")],
        }
        if self.processes > 1:
            settings["strategy"] = _block("intentbench.runner.distributed.GlobalBatchStrategy")
        if self.accumulate > 1:
            settings["accumulate_grad_batches"] = self.accumulate
        if self.compile:
            settings["callbacks"].append(_block("intentbench.runner.compiled.CompileLoss"))
        return settings


@dataclass(frozen=True)
class Trial:
    """One training and its test: a pure function of what `name` hashes.

    Attributes:
        dataset: its name.
        source: what the data module is given: a catalogue key, or the folder of prepared data.
        fingerprint: of the prepared dataset.
        label: row of the leaderboard.
        method: key of the method.
        class_path: where its class is, "module.Class".
        arguments: all arguments of the class.
        data: arguments of the data module, without dataset and seed.
        training: epochs and early stopping.
        seed: seeds weights, order and negatives.
        benchmark: name of the spec.
        code: fingerprint of the method's code; see `intentbench.results.fingerprint`.
        plugin: file that defines the method, "" where it is installed.
        pretrained: "label/trial" of the trial on the same dataset whose checkpoint the method
            starts from, "" where it starts from nothing.
        noise: arguments of the `intentbench.runner.noise.NoisePlan` that the trained method is
            measured under; {} for none.
        reads: what the method reads besides the prepared data, such as texts, with a checksum;
            see `intentbench.models.takes.TakesDataset.reads`. "" for nothing.
    """

    dataset: str
    source: str
    fingerprint: str
    label: str
    method: str
    class_path: str
    arguments: dict[str, Any] = field(hash=False)
    data: dict[str, Any] = field(hash=False)
    training: Training
    seed: int
    benchmark: str = ""
    code: str = ""
    plugin: str = ""
    pretrained: str = ""
    noise: dict[str, Any] = field(default_factory=dict, hash=False)
    reads: str = ""

    @property
    def name(self) -> str:
        """16 hex digits of the sha256 of everything that determines the result."""
        parts = {
            "fingerprint": self.fingerprint,
            "method": self.method,
            "arguments": self.arguments,
            "data": self.data,
            "training": self.training.settings(),
            "seed": self.seed,
        }
        if self.pretrained:  # left out where there is none: names of other trials stay
            parts["pretrained"] = self.pretrained.rpartition("/")[2]
        if self.noise:
            parts["noise"] = self.noise
        if self.reads:
            parts["reads"] = self.reads
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def folder(self, root: Path) -> Path:
        """Its folder below the root of all runs."""
        return trial_folder(root, self.dataset, self.label, self.name)

    def config(self) -> dict[str, Any]:
        """The trial in the form of LightningCLI, with a block `trial` of its own."""
        block = asdict(self)
        for key in ("arguments", "class_path", "data", "seed", "source"):
            del block[key]
        block["training"] = self.training.settings()
        data = {"dataset": self.source, **self.data, "seed": self.seed}
        module = DATA_MODULES[self.data["layout"]]
        return {
            "seed_everything": self.seed,
            "model": _block(self.class_path, **self.arguments),
            "data": _block(f"{module.__module__}.{module.__name__}", **data),
            "trainer": self.training.trainer(),
            "trial": {"name": self.name, **block},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The trial that a configuration describes."""
        block = {key: value for key, value in config["trial"].items() if key != "name"}
        data = dict(config["data"]["init_args"])
        return cls(
            **{**block, "training": Training(**block["training"])},
            source=data.pop("dataset"),
            seed=data.pop("seed"),
            class_path=config["model"]["class_path"],
            arguments=config["model"]["init_args"],
            data=data,
        )


def write_config(folder: Path, trial: Trial) -> None:
    """Write `config.yaml`: the first file of a trial's folder."""
    text = yaml.safe_dump(trial.config(), sort_keys=False, allow_unicode=True)
    write_atomic(folder / CONFIG, text.encode())


def read_config(folder: Path) -> dict[str, Any]:
    """Read the `config.yaml` of a trial.

    Raises:
        OSError: there is none, or it may not be read.
        RequestError: it is damaged, or not that of a trial.
    """
    path = folder / CONFIG
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        fault = "" if _is_whole(config) else "blocks are missing"
    except (ValueError, yaml.YAMLError) as error:
        fault = f"no YAML: {str(error).splitlines()[0]}"
    if fault:
        raise RequestError(
            f"{path}: damaged, or no trial's ({fault}); bring it back, or delete the folder and "
            "run its benchmark again"
        )
    found: dict[str, Any] = config
    return found


def _is_whole(config: object) -> bool:
    """Whether a configuration has what every version of this suite has written into it."""
    if not isinstance(config, dict):
        return False
    model, data, trial = (config.get(name) for name in ("model", "data", "trial"))
    for block in (model, data):
        if not isinstance(block, dict) or not isinstance(block.get("init_args"), dict):
            return False
    return (
        isinstance(model, dict)
        and isinstance(model.get("class_path"), str)
        and isinstance(trial, dict)
        and "fingerprint" in trial
        and isinstance(trial.get("training"), dict)  # comes late: a cut file lacks it
    )


def _block(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}
