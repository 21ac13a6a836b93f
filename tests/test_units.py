"""Sizes as people write them."""

from __future__ import annotations

import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.units import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), (" 40 gib", 40 * 2**30), ("1.5TB", 15 * 10**11), ("512B", 512)],
)
def test_a_size_has_the_bytes_of_its_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "-1GB", "80 iB", "0GB", "80 gigabytes", "1e3GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size in bytes"):
        parse_bytes(text)
