"""A federation: sites train prompts on their own rows and exchange prompt-sized vectors.

Every target of the experiment is a site. In one process all sites are replicas of one population;
over several processes site i belongs to process i mod their number, which alone opens its rows.
Process 0 is the coordinator too. Messages are named in a mailbox (`prompt_jax.mailbox`), so a site
that is late or lost holds up nobody, and a process that is started again goes on from its last
vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from prompt_jax import config as configs
from prompt_jax import distributed, locks, sharding
from prompt_jax.data import registry
from prompt_jax.errors import ConfigError
from prompt_jax.mailbox import LocalMailbox, Mailbox, ServiceMailbox
from prompt_jax.models.base import LanguageModel
from prompt_jax.paths import is_url
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.federated_rounds import Rounds, Say
from prompt_jax.recipes.federated_sites import LocalSites, budget_of
from prompt_jax.recipes.federation import Federation, as_dict
from prompt_jax.recipes.outputs import PromptWriter, write_report
from prompt_jax.recipes.resources import cache_folder, check_inputs, make_mesh
from prompt_jax.recipes.rows import RowStore
from prompt_jax.rundir.federated import FederatedReport, SiteResult
from prompt_jax.rundir.paths import check_folder, prepare_folder, run_folder


def federated(
    config: ExperimentConfig,
    lm: LanguageModel,
    options: Federation | None = None,
    *,
    say: Say = print,
) -> FederatedReport | None:
    """Trains the sites of an experiment; writes `federated.json`, `federated.md` and the prompts.

    Of the experiment its targets (the sites), its one k, its seeds (a federation each), prompt,
    data and the budget of its targets count. Methods and sources do not.

    Args:
      config: the experiment.
      lm: the frozen model that `config.model` names.
      options: how the sites work together; None: the defaults.
      say: receives what a person should read while it runs.

    Returns:
      The results; None in other processes than 0.

    Raises:
      PromptJaxError: for anything a user can cause, before any compute is spent where possible.
    """
    options = options or Federation()
    sites = check(config, options)
    several = distributed.is_multiprocess()
    mailbox: Mailbox = ServiceMailbox() if several else LocalMailbox()
    own = range(distributed.process_index(), len(sites), jax.process_count() if several else 1)
    mesh = None if several else make_mesh(config)
    if mesh is not None:
        lm = sharding.shard_tree(lm, lm.partition_rules, mesh)
    rows = RowStore(config.data, lm.tokenizer, cache_folder(config))
    targets = tuple(config.targets[i] for i in own)
    check_inputs(replace(config, sources=(), targets=targets, methods=("prompt_tuning",)), lm, rows)
    with _folder(config) as folder:
        writer = PromptWriter(folder, config, lm)
        rounds: dict[int, list[dict[str, Any]]] = {}
        found: list[SiteResult] = []
        for seed in config.seed_list:
            if mailbox.get(f"done/{seed}") is not None:  # before this process was started again
                continue
            local = LocalSites(lm, config, targets, seed, rows, mesh)
            one = Rounds(config, options, sites, tuple(own), seed, local, mailbox, writer, say)
            found += one.run()
            if one.coordinator is not None:
                rounds[seed] = [asdict(entry) for entry in one.coordinator.rounds]
                mailbox.put(f"done/{seed}", b"1")
        if not distributed.is_main():
            return None
        numbers = config.prompt.tokens * lm.d_model
        report = FederatedReport(
            folder, config.name, config.shots[0], numbers, as_dict(options), rounds, tuple(found)
        )
        write_report(report)
        return report


def check(config: ExperimentConfig, options: Federation) -> tuple[str, ...]:
    """Checks what can be checked without the model; returns the names of the sites.

    Raises:
      ConfigError: fewer than two sites, several k, a site that there is not, a URL, a mesh or
        fewer sites than processes in a job of several.
    """
    sites = tuple(registry.get(name).name for name in config.targets)
    if len(sites) < 2:
        raise ConfigError("a federation needs two sites or more, as in targets=glue/rte,mr.")
    if len(config.shots) > 1:
        raise ConfigError(
            f"a federation has one k, not {', '.join(map(str, config.shots))}: choose one, as in"
            f" shots={config.shots[0]}."
        )
    if is_url(config.out):
        raise ConfigError(f"a federation writes to a directory of this machine, not {config.out}.")
    if distributed.is_multiprocess():
        if config.mesh:
            raise ConfigError("a site of a job trains on the devices of its process: omit mesh=.")
        if jax.process_count() > len(sites):
            raise ConfigError(
                f"{jax.process_count()} processes have no more than {len(sites)} sites to train:"
                " start fewer, or name more targets."
            )
    options.named(sites)
    rounds = -(-budget_of(config).steps // options.every)
    late = [delay for delay in options.delays if delay.rounds >= rounds]
    if late:
        raise ConfigError(
            f"{late[0].site} is late by {late[0].rounds} rounds, and there are {rounds}: nothing"
            " would ever come of it."
        )
    return sites


@contextmanager
def _folder(config: ExperimentConfig) -> Iterator[Path]:
    """The run directory, locked by process 0; each process writes the prompts of its sites there.

    Raises:
      ConfigError: it holds something else, or another process writes to it, or it cannot be made.
    """
    path = run_folder(config.out, config.name)
    if not distributed.is_main():
        yield path
        return
    described = configs.to_dict(config)
    check_folder(path, described)
    locks.check_free(path / locks.NAME, path)
    prepare_folder(path, described)
    lock = locks.FileLock(path / locks.NAME, path)
    try:
        lock.acquire()
        yield path
    finally:
        lock.release()
