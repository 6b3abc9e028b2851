"""The record of a trial: what ran, where, at what cost, and what came out."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 1
"""Version of the record; older ones are read through `results/migrate.py` once there are any."""


ORACLE = "oracle"
"""Label and method of the Bayes-best ranker of synthetic data: a ceiling, no competitor."""


@dataclass(frozen=True)
class Cost:
    """What a trial cost.

    Attributes:
        parameters: trainable parameters.
        seconds: wall time of the whole trial, and of the trial that it started from.
        seconds_per_epoch: mean wall time of a training epoch, validation left out; 0 without one.
        epochs: training epochs run.
        latency_1: median milliseconds to score one user alone.
        latency_256: median milliseconds a user when 256 are scored together.
        peak_memory_mb: largest resident set of the process, in MiB.
        peak_device_memory_mb: largest allocation on the accelerator, 0 on CPU.
    """

    parameters: int = 0
    seconds: float = 0.0
    seconds_per_epoch: float = 0.0
    epochs: int = 0
    latency_1: float = 0.0
    latency_256: float = 0.0
    peak_memory_mb: float = 0.0
    peak_device_memory_mb: float = 0.0


@dataclass(frozen=True)
class TrialRecord:
    """One trial. Ranks lie beside it in `ranks.npz` (arrays user, key, rank).

    Attributes:
        trial: its name, a hash of everything that determines the result.
        status: "done" or "failed".
        reason: why it failed, in one line; "" when done.
        benchmark: name of the spec that it was run for.
        dataset: catalogue key.
        data_fingerprint: of the prepared dataset.
        label: row of the leaderboard; one method may stand under several.
        method: key in METHODS.
        arguments: the method's resolved arguments.
        data: arguments of the data module (layout, window, batch size, mask_history, …).
        training: epochs, patience, monitored metric, precision, …
        seed: the seed; 0 for a deterministic method.
        metrics: test means by name ("ndcg@10").
        validation: the best epoch's validation means.
        best_epoch: counted from 0; -1 without epochs.
        curve: the monitored metric at each validation, to 6 digits after the point; `training`
            says what is monitored and how many epochs lie between. Empty without epochs, and in
            records from before there were curves.
        cost: what it cost.
        environment: versions, commit, device, threads.
        code: fingerprint of the method's source and all it imports inside the package.
        card: snapshot of the method's Card.
        statistics: of the dataset (users, items, interactions, …).
        signs: what went wrong in training that no metric shows, a line each; see
            `intentbench.runner.signs`.
        intents: how well labels of the next event are predicted, "intent/measure" to test mean;
            empty for methods that predict none. See `intentbench.metrics.intent_prediction`.
        protocol: split, masking, targets and the like, as printed under a table.
        noise: what the trained method came to under noise, an entry a setting: protocol ("test",
            or "training" where another model was trained with noise), kind, rate, rounding, seed,
            the share of inputs that were touched, and metrics. Ranks lie in `noise.npz`.
        finished: UTC time, ISO 8601.
        schema: version of this record.
    """

    trial: str
    status: Literal["done", "failed"]
    dataset: str
    data_fingerprint: str
    label: str
    method: str
    seed: int
    reason: str = ""
    benchmark: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    best_epoch: int = -1
    cost: Cost = field(default_factory=Cost)
    environment: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    signs: list[str] = field(default_factory=list)
    noise: list[dict[str, Any]] = field(default_factory=list)
    intents: dict[str, float] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    finished: str = ""
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The record as indented JSON, without what only some methods or trials have."""
        content = asdict(self)
        for name in ("noise", "intents", "curve"):
            if not content[name]:  # older records did not have it
                del content[name]
        return json.dumps(content, indent=1, sort_keys=True)


def parse_record(text: str) -> TrialRecord:
    """Read a record.

    Raises:
        ValueError: the text is no record of this schema.
    """
    raw = json.loads(text)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ValueError(f"not a trial record of schema {SCHEMA}")
    raw["cost"] = Cost(**raw["cost"])
    return TrialRecord(**raw)
