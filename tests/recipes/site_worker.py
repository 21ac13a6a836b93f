"""A process of a federation; one is killed in round 2, and process 0 waits for it in round 5."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

KILLED, BACK = 2, 5  # rounds


def work(
    folder: str, port: int, count: int, number: int, config: list[str], dies: bool = False
) -> None:
    """Joins, trains its site, and prints the report in process 0.

    Args:
      folder: not used.
      port: of process 0.
      count: processes.
      number: of this one.
      config: of the experiment, with overrides.
      dies: whether it kills itself.
    """
    from prompt_jax import config as configs
    from prompt_jax import distributed, mailbox, models
    from prompt_jax.recipes.federated import federated
    from prompt_jax.recipes.federated_sites import LocalSites
    from prompt_jax.recipes.federation import Federation

    assert distributed.initialize("on", f"127.0.0.1:{port}", count, number, survive=True)
    options = Federation(every=2)
    original = LocalSites.train

    def train(self: Any, begin: int, end: int, up: Any) -> None:
        place = end // options.every
        if dies and place == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        # The rest of the test waits for nobody that is gone.
        object.__setattr__(options, "patience", 0.5 if KILLED <= place < BACK else 120.0)
        if number == 0 and place == BACK:
            box = mailbox.ServiceMailbox()
            assert mailbox.wait(lambda: box.get("back/0/1"), 120.0) is not None
        original(self, begin, end, up)

    LocalSites.train = train  # type: ignore[method-assign]
    loaded: Any = configs.load_config(config[0], config[1:])
    report = federated(
        loaded, models.load(loaded.model), options, say=lambda line: print(line, file=sys.stderr)
    )
    if report is not None:
        print(json.dumps(report.to_dict()), flush=True)
    distributed.hard_exit(0)


if __name__ == "__main__":
    work(**json.loads(sys.argv[1]))
