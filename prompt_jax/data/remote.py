"""Reading and downloading data of TensorFlow Datasets and the Hugging Face Hub.

The local copy is checked before the library is imported or the network is used: without a network,
a TFDS download retries for minutes before it fails.
"""

from __future__ import annotations

import importlib
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompt_jax.data.files import ArrowRows, read_parquet
from prompt_jax.data.tasks import HubSource, TfdsSource
from prompt_jax.errors import DataError, MissingExtraError
from prompt_jax.paths import home, hub_cache, user_cache


class TfdsRows:
    """Rows of a prepared TFDS split, read by random access."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows = rows
        self.name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]

    def describe(self, index: int) -> str:
        """The name of row `index` in error messages, counted from 1."""
        return f"row {index + 1} of {self.name}"


def tfds_data_dir() -> Path:
    """Folder where TFDS keeps prepared data: $TFDS_DATA_DIR or its default."""
    if named := os.environ.get("TFDS_DATA_DIR"):
        return Path(named)
    return (home() or user_cache()) / "tensorflow_datasets"


def open_tfds(spec: TfdsSource, split: str, data_dir: Path | None = None) -> TfdsRows | None:
    """Opens a TFDS split that is prepared on disk; returns None if there is none.

    The builder is read from its folder, so this also works where the builder's code cannot run
    (constructing super_glue requires tensorflow, reading it does not).

    Raises:
      DataError: if the data was prepared in a format without random access, or lacks the split.
      MissingExtraError: without tensorflow_datasets.
    """
    folder = _newest(Path(data_dir or tfds_data_dir()) / spec.builder)
    if folder is None:
        return None
    tfds = _import_tfds()
    try:
        return tfds_rows(tfds.builder_from_directory(folder), split)
    except NotImplementedError:
        raise DataError(
            f"TFDS data in {folder} has no random access. Remove that folder and run once with "
            "network: prompt-jax tasks fetch (it prepares array_record files)."
        ) from None


def tfds_rows(builder: Any, split: str) -> TfdsRows:
    """Rows of one split of a TFDS builder.

    Raises:
      DataError: if the builder has no such split.
    """
    known = list(builder.info.splits)
    if known and split not in known:  # a mocked builder lists no splits and has all of them
        raise DataError(f"TFDS '{builder.info.full_name}' has no split '{split}'; it has {known}.")
    return TfdsRows(builder.as_data_source(split), f"TFDS {builder.info.full_name} {split}")


def fetch_tfds(spec: TfdsSource) -> Path:
    """Downloads and prepares a TFDS builder in array_record format; returns its folder.

    Raises:
      DataError: without network, or if the builder is unknown or fails.
      MissingExtraError: without tensorflow_datasets.
    """
    prepared = _newest(tfds_data_dir() / spec.builder)
    if prepared is not None:
        return prepared
    tfds = _import_tfds()
    _check_network("storage.googleapis.com", f"TFDS '{spec.builder}'")
    try:
        # Only this import registers the text builders.
        importlib.import_module("tensorflow_datasets.text")
        builder = tfds.builder(spec.builder, data_dir=tfds_data_dir(), file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # a builder's own code can raise anything
        raise DataError(
            f"TFDS could not prepare '{spec.builder}': {type(error).__name__}: {error}\n"
            "  Put JSONL files under a folder and pass it as data.root instead."
        ) from error
    return Path(builder.data_path)


def open_hub(spec: HubSource, split: str, cache_dir: Path | None = None) -> ArrowRows | None:
    """Opens a split of a Hub data set from the local cache; returns None if it is not cached.

    Only parquet files are read, in the layouts `<config>/<split>-*.parquet`,
    `<config>/<split>/*.parquet` and the same under `data/` or without a folder.

    Raises:
      DataError: if a file is damaged.
      MissingExtraError: without pyarrow.
    """
    for folder, paths in _hub_files(spec, split, cache_dir):
        return ArrowRows(read_parquet(paths), f"{spec.path} {folder} {split}")
    return None


def is_here(spec: TfdsSource | HubSource, split: str, cache_dir: Path | None = None) -> bool:
    """Whether a split of a public source is on this machine; opens no file of rows.

    Args:
      spec: the source.
      split: its own name of the split; data of TFDS has all splits, or is reported when opened.
      cache_dir: of the Hub; None: the default.
    """
    if isinstance(spec, TfdsSource):
        return _newest(tfds_data_dir() / spec.builder) is not None
    return any(_hub_files(spec, split, cache_dir))


def _hub_files(
    spec: HubSource, split: str, cache_dir: Path | None = None
) -> Iterator[tuple[str, list[Path]]]:
    """Folders of a cached Hub data set that hold a split, each with its files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            spec.path,
            repo_type="dataset",
            revision=spec.revision,
            cache_dir=cache_dir or hub_cache(),
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return
    for folder in _hub_folders(spec):
        base = Path(snapshot) / folder
        paths = [*base.glob(f"{split}-*.parquet"), *base.glob(f"{split}/*.parquet")]
        paths += [path for path in [base / f"{split}.parquet"] if path.is_file()]
        if paths:
            yield folder, sorted(paths)


def fetch_hub(spec: HubSource, cache_dir: Path | None = None) -> Path:
    """Downloads the parquet files of a Hub data set into the cache; returns its folder there.

    Raises:
      DataError: without network or if the repository cannot be read.
    """
    from huggingface_hub import snapshot_download

    _check_network("huggingface.co", f"data set '{spec.path}'")
    patterns = [f"{folder}{end}" for folder in _hub_folders(spec) for end in ("*", "*/*")]
    try:
        snapshot = snapshot_download(
            spec.path,
            repo_type="dataset",
            revision=spec.revision,
            cache_dir=cache_dir or hub_cache(),
            allow_patterns=[f"{pattern}.parquet" for pattern in patterns],
        )
    except Exception as error:  # transport errors depend on the HTTP library of the hub client
        raise DataError(
            f"data set '{spec.path}' could not be fetched: {type(error).__name__}: {error}"
        ) from error
    return Path(snapshot)


def _hub_folders(spec: HubSource) -> Iterator[str]:
    yield from (f"{spec.config}/",) if spec.config else ("", "data/", "default/")


def _newest(folder: Path) -> Path | None:
    """The folder of the newest version in a TFDS builder's folder, or None."""
    versions = {}
    for path in folder.glob("*.*.*/dataset_info.json"):
        parts = path.parent.name.split(".")
        if all(part.isdigit() for part in parts):
            versions[tuple(map(int, parts))] = path.parent
    return versions[max(versions)] if versions else None


def _import_tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError:
        raise MissingExtraError("tensorflow_datasets", "tfds", "reading TFDS data") from None
    return tensorflow_datasets


def _check_network(host: str, what: str) -> None:
    if urllib.request.getproxies():  # a proxy resolves names for us
        return
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        raise DataError(
            f"{what} must be downloaded, and {host} cannot be reached from here.\n"
            "  Run this once on a machine with network, or put JSONL files under a folder and "
            "pass it as data.root."
        ) from None
