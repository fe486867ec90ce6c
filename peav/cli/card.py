"""The card of a converted model, and the folder on the hub: `peav convert --card`, `--push_to_hub`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peav.checkpoints import ModelSpec
from peav.cli.evaluate_model import ModelChoice
from peav.digest import model_digest
from peav.evaluation.card import CardFacts, model_card
from peav.model import PEAV

log = logging.getLogger(__name__)

#: Parts of a run's configuration that say how it was trained.
_RECIPE = ("seed_everything", "trainer", "data", "model")

#: Settings of the trainer that say where it ran.
_PLACES = (
    "default_root_dir",
    "logger",
    "callbacks",
    "plugins",
    "profiler",
    "enable_progress_bar",
    "enable_model_summary",
)


@dataclass(frozen=True)
class CardOptions:
    """What `peav convert` was told for the card.

    Attributes:
        results: evaluation.json.
        license: the hub's identifier of the licence.
        base_model: repository that the model was trained from; by default what the run says.
        datasets: that it was trained on; by default what the run says.
        name: of the model, or its repository.
    """

    results: Path
    license: str
    base_model: str | None = None
    datasets: tuple[str, ...] | None = None
    name: str | None = None


def write_card(options: CardOptions, source: str, model: PEAV, out: Path, format: str, trust: bool = False) -> Path:
    """Writes README.md into the folder of a converted model.

    Args:
        options: what goes into it.
        source: what was converted.
        model: it.
        out: its folder.
        format: of the folder.
        trust: see `PEAV.from_pretrained`.

    Raises:
        FileNotFoundError: if the results are not there.
        ValueError: if they are no results, or those of another model.
    """
    try:
        results = json.loads(options.results.read_text(encoding="utf-8"))
        digest = results["model"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{options.results} is no result of `peav evaluate`: {error!r}") from error
    _check_same(digest, options.results, source, model, trust)
    run = _run_config(source)
    spec: ModelSpec = model.spec
    base = options.base_model if options.base_model is not None else _base_model(source, run)
    datasets = options.datasets if options.datasets is not None else _datasets(run)
    facts = CardFacts(options.license, base, datasets, _recipe(run))
    count = sum(parameter.numel() for parameter in model.parameters())
    card = model_card(options.name or out.name, spec, results, facts, format, count)
    path = out / "README.md"
    card.save(path)
    return path


def push(folder: Path, repo: str, private: bool = True) -> str:
    """Uploads a folder to a repository of the hub, which is made where it is not there; returns its address.

    The token is huggingface_hub's: of `hf auth login`, or HF_TOKEN.

    Args:
        folder: of the model.
        repo: `OWNER/NAME`.
        private: whether a repository that is made is private.

    Raises:
        ValueError: if the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api = HfApi()
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=f"{folder.name}, by peav convert")
    except HfHubHTTPError as error:
        raise ValueError(f"the hub refuses {repo}: {error}") from error
    return str(made)


def _check_same(digest: str, path: Path, source: str, model: PEAV, trust: bool) -> None:
    """Refuses the results of another model; a `.ckpt` has a digest of its own, with its objectives' pairs."""
    if digest == model_digest(model):
        return
    if source.endswith(".ckpt") and digest == ModelChoice(source, device="cpu", trust=trust).open()[0].digest:
        return
    raise ValueError(
        f"{path} is the result of another model, with the digest {digest}: evaluate {source}, or what it was converted to"
    )


def _run_config(source: str) -> dict[str, Any]:
    """Returns the configuration of the run that wrote a checkpoint; empty where there is none."""
    if not source.endswith(".ckpt"):
        return {}
    run = Path(source).resolve().parent.parent
    # Lightning writes it where the first logger writes.
    found = [*run.glob("config.yaml"), *run.glob("*/config.yaml"), *run.glob("csv/*/config.yaml")]
    if not found:
        log.warning("there is no config.yaml of the run in %s: the card says nothing of the recipe", run)
        return {}
    newest = max(found, key=lambda file: file.stat().st_mtime)
    return dict(yaml.safe_load(newest.read_text(encoding="utf-8")) or {})


def _recipe(run: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _said(run[name]) for name in _RECIPE if name in run}
    if isinstance(kept.get("trainer"), dict):
        kept["trainer"] = {name: value for name, value in kept["trainer"].items() if name not in _PLACES}
    return kept


def _said(value: Any) -> Any:
    """Leaves out what was not set, and where files lie on this machine, which is nobody's business."""
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_said(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _base_model(source: str, run: dict[str, Any]) -> str | None:
    """Returns the repository that a model was trained from, or is; "" where from scratch, None where that is not known."""
    if run:
        named = (run.get("model") or {}).get("init_from")
        return _repository(str(named)) if named else ""
    return _repository(source)


def _repository(named: str) -> str | None:
    """Returns OWNER/NAME; None for a file or folder, of which the hub knows nothing."""
    owner, slash, name = named.partition("/")
    return (
        named if slash and owner not in ("", ".", "..", "~") and "/" not in name and not Path(named).exists() else None
    )


def _datasets(run: dict[str, Any]) -> tuple[str, ...]:
    data = str((run.get("data") or {}).get("data") or "")
    return (Path(data).name,) if data else ()
