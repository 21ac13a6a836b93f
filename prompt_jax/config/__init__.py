"""Configs as frozen dataclasses, with overrides: dotted keys and values parsed by field type.

`override(config, ["target.steps=2000", "targets=glue/rte,mr"])` returns a new config. An unknown
key, a value of the wrong type or a value outside a field's choices raises one `ConfigError`, which
suggests the nearest keys.
"""

from __future__ import annotations

from prompt_jax.config.checks import check_types as check_types
from prompt_jax.config.files import config_arguments as config_arguments
from prompt_jax.config.files import load_config as load_config
from prompt_jax.config.files import load_file as load_file
from prompt_jax.config.files import modules_beside as modules_beside
from prompt_jax.config.keys import Key as Key
from prompt_jax.config.keys import describe as describe
from prompt_jax.config.suggestions import keys_meant as keys_meant
from prompt_jax.config.suggestions import suggest as suggest
from prompt_jax.config.tables import from_table as from_table
from prompt_jax.config.trees import differences as differences
from prompt_jax.config.trees import digest as digest
from prompt_jax.config.trees import keys as keys
from prompt_jax.config.trees import override as override
from prompt_jax.config.trees import to_dict as to_dict
from prompt_jax.config.values import parse_value as parse_value
from prompt_jax.config.values import split_list as split_list
