"""`prompt-jax info`: versions, devices, caches, and a model."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Annotated, Any

import typer

from prompt_jax import __version__
from prompt_jax.cli import common, loading

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets", "pyarrow", "torch")
_NEEDS_WEIGHTS = ("weights_sha256", "embedding_rms", "tokenizer")


def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Directory or hub id of a model.")
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Versions, devices and caches, and the shape and hash of a model."""
    sections: dict[str, dict[str, Any]] = {
        "versions": {
            "prompt_jax": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "devices": _devices(),
        "caches": _caches(),
    }
    if model is not None:
        sections["model"] = _model(model)
    if as_json:
        return common.emit(sections)
    out = common.Printer()
    for number, (title, pairs) in enumerate(sections.items()):
        if number:
            out.print()
        out.print(common.heading(title))
        lines = [
            (f"  {name}", _nothing(title, name) if value is None else _text(value))
            for name, value in pairs.items()
        ]
        out.print(common.facts(lines))
    return None


def _nothing(title: str, name: str) -> str:
    """What stands for None: a package, a fact that needs the weights, or an option that is off."""
    if title != "model":
        return "not installed"
    return "not on this machine" if name in _NEEDS_WEIGHTS else "none"


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    import jax

    from prompt_jax.training.memory import free_bytes

    kinds = sorted({device.device_kind for device in jax.devices()})
    free = free_bytes()
    return {
        "platform": jax.default_backend(),
        "count": jax.device_count(),
        "kind": ", ".join(kinds),
        "free memory": "that of the host" if free is None else common.format_bytes(free),
        "cores": os.cpu_count() or 1,
    }


def _caches() -> dict[str, Any]:
    from prompt_jax.data.remote import tfds_data_dir
    from prompt_jax.paths import hub_cache, user_cache

    folders = {"prompt_jax": user_cache(), "TFDS": tfds_data_dir(), "Hub": hub_cache()}
    found = {name: f"{path}{'' if path.is_dir() else ' (empty)'}" for name, path in folders.items()}
    return {**found, "compiled programs": _compiled()}


def _compiled() -> str:
    """Where compiled programs are, and how much; or that they are not kept, and why."""
    from prompt_jax import compile_cache

    folder = compile_cache.in_use()
    if folder is None:
        return f"off ({compile_cache.find()[1] or 'as asked for'})"
    sizes = compile_cache.sizes(folder)
    return f"{folder} ({len(sizes):,}, {common.format_bytes(sum(sizes))})"


def _model(name: str) -> dict[str, Any]:
    """Facts of a model; of a published one that would have to be downloaded, its shape."""
    import jax

    from prompt_jax import models
    from prompt_jax.models import hub

    if models.has_known_shape(name) and not hub.is_local(name):
        lm = models.abstract(name)
        return {
            "name": lm.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(lm.params)),
            **dict.fromkeys(_NEEDS_WEIGHTS),
            **lm.model_config,
        }
    lm = loading.load_model(name)
    facts: dict[str, Any] = {
        "name": lm.name,
        "weights_sha256": lm.weights_hash,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(lm.params)),
        "embedding_rms": f"{float(lm.embedding_rms()):.4g}",
        "tokenizer": "none",
    }
    if lm.has_tokenizer:
        facts["tokenizer"] = f"{lm.tokenizer.vocab_size:,} pieces"
    return {**facts, **lm.model_config}
