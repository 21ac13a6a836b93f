"""Named configs: `prompt-jax run NAME` runs `get_config()` of the module NAME in this package.

A config of one's own is a Python file with a function `get_config()`; see docs/cli.md.
"""
