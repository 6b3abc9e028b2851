"""Models on this machine: where they lie, and what is refused before a library sees it."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from datamodules.errors import RequestError
from intentbench.text.encoders import SentenceEncoder
from intentbench.text.local_models import find_model

OWN = "sentence_transformers.models."


@pytest.fixture(params=["folder", "hub"])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with a model, and the name by which it is asked for: its own, or one of the hub."""
    folder = tmp_path / "0123abc"
    _weigh(folder)
    if request.param == "folder":
        return folder, str(folder)

    def download(name: str, *, revision: str | None, local_files_only: bool) -> str:
        assert (name, revision, local_files_only) == ("owner/name", None, True)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return folder, "owner/name"


def _weigh(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.eye(2)}, folder / "model.safetensors")


def _modules(folder: Path, **kinds: str) -> None:
    rows = [
        {"idx": n, "name": str(n), "path": path.replace("root", ""), "type": kind}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(rows))


def test_models_must_be_here() -> None:
    with pytest.raises(RequestError, match=r"hf download nobody/nothing --revision abc"):
        find_model("nobody/nothing", "abc")


def test_a_model_of_known_modules_with_safetensors_is_found(model: tuple[Path, str]) -> None:
    folder, name = model
    _modules(folder, root=f"{OWN}Transformer", pooling=f"{OWN}Pooling", dense=f"{OWN}Dense")
    (folder / "pooling").mkdir()
    _weigh(folder / "dense")
    for place in (folder, folder / "dense"):
        (place / "pytorch_model.bin").write_bytes(b"beside safetensors: not read")
    (folder / "openvino").mkdir()
    (folder / "openvino" / "openvino_model.bin").write_bytes(b"of no module: not read")
    found, called, revision = find_model(name, None)
    assert found == folder
    assert (
        (called, revision) == (name, "0123abc")
        if "/name" in name
        else (called == "0123abc" and revision.startswith("sha256:"))
    )


def test_modules_of_the_models_own_are_refused_before_a_library_sees_them(
    model: tuple[Path, str],
) -> None:
    folder, name = model
    _modules(folder, root=f"{OWN}Transformer", evil="custom_code.Evil")
    (folder / "custom_code.py").write_text("raise SystemExit('this code has run')")
    with pytest.raises(RequestError, match=r"modules.json: 'custom_code.Evil' is code of the") as e:
        find_model(name, None)
    assert "\n" not in str(e.value)
    with pytest.raises(RequestError, match=r"is code of the model's own|pip install"):
        SentenceEncoder(name)


def test_modules_of_a_router_are_looked_at_too(model: tuple[Path, str]) -> None:
    folder, name = model
    _modules(folder, router=f"{OWN}Router")
    types = {"query_0": f"{OWN}Transformer", "query_1": "os.path"}
    (folder / "router").mkdir()
    (folder / "router" / "router_config.json").write_text(json.dumps({"types": types}))
    with pytest.raises(RequestError, match=r"router_config.json: 'os.path' is code"):
        find_model(name, None)
    types["query_1"] = f"{OWN}Dense"
    (folder / "router" / "router_config.json").write_text(json.dumps({"types": types}))
    find_model(name, None)
    (folder / "router" / "query_1").mkdir()
    (folder / "router" / "query_1" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RequestError, match=r"query_1/pytorch_model.bin: no \*.safetensors beside"):
        find_model(name, None)


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_pickled_weights_are_refused(model: tuple[Path, str], weights: str) -> None:
    folder, name = model
    _modules(folder, root=f"{OWN}Transformer", dense=f"{OWN}Dense")
    (folder / "dense").mkdir()
    (folder / "dense" / weights).write_bytes(b"")
    with pytest.raises(RequestError, match=f"dense/{weights}: .*pickled weights are not loaded"):
        find_model(name, None)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        RequestError, match=r"has no \*.safetensors; pickled weights are not loaded"
    ):
        find_model(name, None)


def test_a_list_of_modules_that_is_none_is_refused(model: tuple[Path, str]) -> None:
    folder, name = model
    for content in ("{", '[{"path": ""}]', "[3]", "3"):
        (folder / "modules.json").write_text(content)
        with pytest.raises(RequestError, match="not what sentence-transformers writes"):
            find_model(name, None)
