"""Models that lie on this machine: where, and whether they may be loaded.

Nothing is downloaded. A model whose modules are not those of sentence-transformers, or whose
weights are pickled alone, is refused before a library sees it: sentence-transformers 5 trusts
whatever lies in a folder, though it is told not to. Code that a transformers model brings is
refused by transformers itself, which is told to trust none.
"""

import hashlib
import json
from importlib import import_module
from pathlib import Path

from datamodules.errors import RequestError

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
"""Names of weights that may be pickles."""


def find_model(model: str, revision: str | None) -> tuple[Path, str, str]:
    """Where a model lies, what it is called, and its revision.

    Args:
        model: a folder, or a name on the hub.
        revision: commit or tag of a name.

    Raises:
        RequestError: it is not on this machine, or `check_model` refuses it.
    """
    folder, name = Path(model), Path(model).name
    if folder.is_dir():
        check_model(folder)
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return folder, name, f"sha256:{digest.hexdigest()[:16]}"
    hub = import_module("huggingface_hub")
    try:
        folder = Path(hub.snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # what the hub's errors derive from
        at = f" --revision {revision}" if revision else ""
        raise RequestError(
            f"{model}: no such folder, and no such model on this machine; fetch it first: "
            f"`hf download {model}{at}`"
        ) from None
    check_model(folder)
    return folder, model, folder.name


def check_model(folder: Path) -> None:
    """Refuse a model that would bring its own code, or a pickle, into this process.

    Raises:
        RequestError: a module is not of sentence-transformers itself, or a folder that is read has
            weights that may be pickled and no safetensors.
    """
    if not any(folder.rglob("*.safetensors")):
        raise RequestError(f"{folder}: has no *.safetensors; pickled weights are not loaded")
    for place in _places(folder):
        pickled = [path for name in _PICKLED for path in sorted(place.glob(name))]
        if pickled and not any(place.glob("*.safetensors")):
            raise RequestError(
                f"{pickled[0]}: no *.safetensors beside it; pickled weights are not loaded"
            )


def _places(folder: Path) -> list[Path]:
    """The folders that are read: the model's own and those of its modules, which are checked."""
    places = [folder.resolve()]
    for place in places:  # grows: a router has modules of its own
        for file in ("modules.json", "router_config.json"):
            path = place / file
            modules = _modules(path) if path.exists() else {}
            for kind in modules.values():
                if not kind.startswith("sentence_transformers."):
                    raise RequestError(
                        f"{path}: {kind!r} is code of the model's own; it is not run"
                    )
            found = ((place / name).resolve() for name in modules)
            places += [inner for inner in dict.fromkeys(found) if inner not in places]
    return places


def _modules(path: Path) -> dict[str, str]:
    """Folders of modules and the classes that they name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, list):  # modules.json
            return {str(module["path"]): str(module["type"]) for module in found}
        return {str(name): str(kind) for name, kind in found.get("types", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RequestError(f"{path}: not what sentence-transformers writes") from None
