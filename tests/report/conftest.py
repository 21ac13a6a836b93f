"""The synthetic run directory of tests/rundir."""

from __future__ import annotations

from rundir.conftest import copy as copy
from rundir.conftest import loaded as loaded
from rundir.conftest import made as made
