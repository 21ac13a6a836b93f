"""What an experiment needs around its stages: devices, folders, a store and checks of its input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import jax

from prompt_jax import config as configs
from prompt_jax import distributed, locks, sharding
from prompt_jax.data.overlap import refuse_tested_sources
from prompt_jax.data.sources import is_here, missing_data
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.models.base import LanguageModel
from prompt_jax.paths import is_url, user_cache
from prompt_jax.prompts import parse
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.mirror import TRAINED, Mirror
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.unfinished import Unfinished
from prompt_jax.rundir import provenance
from prompt_jax.rundir.paths import check_folder, prepare_folder, run_folder
from prompt_jax.training.population import check_tokens


class RunFolder:
    """Where this process writes an experiment: its run directory, or a temporary folder.

    Only process 0 has the run directory, and holds a lock on it until the context ends: two
    processes at once would write each line twice. A directory at a URL is brought here first, and
    sent there whenever something is finished.

    Args:
      config: the experiment.

    Attributes:
      path: of the folder.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config, self.path = config, run_folder(config.out, config.name)
        self._checkpoints = self.path / "checkpoints"  # of all processes: a shared one is sharded
        self.described = configs.to_dict(config)
        self._mirror = Mirror(config.out) if self.is_mirrored and distributed.is_main() else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        # What is brought from a URL replaces the whole folder: its lock lies beside it.
        beside = self.path.with_name(self.path.name + locks.NAME)
        lock = beside if self.is_mirrored else self.path / locks.NAME
        self._lock = locks.FileLock(lock, config.out or self.path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    @property
    def is_mirrored(self) -> bool:
        """Whether the run directory is at a URL."""
        return is_url(self.config.out)

    def check(self) -> None:
        """Checks that the run directory, where it exists, holds the same config; writes nothing.

        Raises:
          ConfigError: it holds something else, or another process writes to it.
          TrainingError: a URL cannot be read.
        """

        def check() -> None:
            if self._mirror is None:
                locks.check_free(self._lock.path, self._lock.what)
            else:
                self._take_lock()
                self._mirror.fetch()
            check_folder(self.path, self.described)

        _only_main(check)

    @contextmanager
    def created(self, lm: LanguageModel) -> Iterator[Path]:
        """The folder, with config and provenance; what is left at the end is sent to the URL.

        Args:
          lm: the frozen model.

        Raises:
          ConfigError: the folder cannot be made, or another process writes to it.
          TrainingError: a URL cannot be written, or a file could not be written on the way.
        """
        _only_main(self._prepare)
        if not distributed.is_main():
            self._temporary = tempfile.TemporaryDirectory(prefix="prompt-jax-")
            self.path = Path(self._temporary.name)
        try:
            provenance.write(self.path, lm)
            self.send()  # a URL that cannot be written is found before the first step
            yield self.path
            self.send()
        except OSError as error:  # a full disk, a file that went away
            raise TrainingError(
                f"{error.filename or self.path}: {error.strerror or error}. What was finished is"
                " kept: put that right, and run the same command again to resume."
            ) from error
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def _prepare(self) -> None:
        self._take_lock()
        prepare_folder(self.path, self.described)

    def _take_lock(self) -> None:
        try:
            self._lock.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise ConfigError(
                f"cannot write the run directory {self.path}: {error.strerror}."
            ) from None

    def send(self) -> None:
        """Sends what changed to the URL, if there is one; every process has to call it."""
        if self.is_mirrored:
            _only_main(self._push)

    def _push(self) -> None:
        if self._mirror is not None:
            self._mirror.push()

    def store(self) -> ArtefactStore:
        """Where finished stages are kept: of a run at a URL they travel with it by default."""
        if self.is_mirrored and self.config.data.cache is None:
            return ArtefactStore(self.path / TRAINED)
        return store_of(self.config)

    def unfinished(self) -> Unfinished:
        """Where populations that are being trained are remembered."""
        return Unfinished(
            self._checkpoints,
            self.config.checkpoint_seconds,
            newest=self.config.checkpoint_keep,
            on_written=None if self._mirror is None else self._push,
        )


def cache_folder(config: ExperimentConfig) -> Path | None:
    """The folder of everything that is kept between experiments; None: nothing is."""
    if config.data.cache == "":
        return None
    return user_cache() if config.data.cache is None else Path(config.data.cache)


def store_of(config: ExperimentConfig) -> ArtefactStore:
    """The store of what was trained and tested, shared by experiments."""
    cache = cache_folder(config)
    return ArtefactStore(None if cache is None else cache / "runs")


def make_mesh(config: ExperimentConfig) -> jax.sharding.Mesh | None:
    """The mesh of the config; several processes without one share the rows.

    Raises:
      ConfigError: the mesh does not fit the devices.
    """
    every = jax.device_count() if distributed.is_multiprocess() else 0
    if not config.mesh:
        return sharding.make_mesh(every) if every else None
    sizes = sharding.parse_mesh(config.mesh)
    if every and sizes["data"] * sizes["model"] != every:
        raise ConfigError(
            f"mesh '{config.mesh}' has to use all {every} devices of the {jax.process_count()}"
            " processes: each process holds a part of every array."
        )
    return sharding.make_mesh(sizes["data"], sizes["model"])


def check_inputs(config: ExperimentConfig, lm: LanguageModel, rows: RowStore) -> None:
    """Opens all data and makes an initial prompt: what is wrong is found before the first step.

    Raises:
      PromptJaxError: for missing data (all tasks in one message), unusable data, or a wrong
        initialisation.
    """
    tasks = {rows.task(name).name: rows.task(name) for name in (*config.sources, *config.targets)}
    missing = [task for task in tasks.values() if not is_here(task, config.data.root)]
    if missing:
        raise missing_data(missing, config.data.root)
    refuse_tested_sources(*(map(rows.task, names) for names in (config.sources, config.targets)))
    every = [
        *((source, seed, 0) for seed in config.seed_list for source in config.sources),
        *((t, seed, k) for seed in config.seed_list for t in config.targets for k in config.shots),
    ]
    for name, seed, k in every:
        parts = rows.rows(name, seed, k)
        for split in (parts.train, parts.dev, parts.test):
            check_tokens(lm, split)
    parse(config.prompt.init)(lm, config.prompt.tokens, config.first_seed)


def _only_main(function: Callable[[], object]) -> None:
    """Does something in process 0; what it raises is raised in all."""

    def call() -> None:
        function()

    distributed.on_main(call)
