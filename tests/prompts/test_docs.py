"""docs/prompts.md runs as it stands there, the way tests/test_readme.py runs the README."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.prompts import SoftPrompt, from_npy, parse

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "prompts.md").read_text("utf-8")


@pytest.mark.process
def test_the_page_is_a_program_that_runs(tmp_path: Path) -> None:
    config = T5Config(vocab_size=384, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    FrozenT5.from_config(config).save_pretrained(tmp_path / "model")
    byte_tokenizer = {"tokenizer_class": "ByT5Tokenizer"}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(byte_tokenizer), "utf-8")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 6
    code = "\n".join(
        [
            "from prompt_jax import FrozenT5",
            "lm = FrozenT5.from_pretrained('model')",
            *blocks,
            "start.save('start'); init.save('init'); print(table.shape, len(words))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'name': '0.5 * (mnli + qnli)'" in done.stdout
    assert done.stdout.endswith("(3, 3) 10\n")
    init, start, tuned, bare = (
        np.asarray(prompt.embeddings)
        for prompt in (
            SoftPrompt.load(tmp_path / "init"),
            SoftPrompt.load(tmp_path / "start"),
            SoftPrompt.load(tmp_path / "prompts" / "mnli.safetensors"),
            from_npy(tmp_path / "mnli.npy"),
        )
    )
    # init + 0.5 * (0.1 - 0.2)
    np.testing.assert_allclose(start - init, np.full_like(init, -0.05), atol=1e-6)
    np.testing.assert_array_equal(bare, tuned)


@pytest.mark.parametrize("row", re.findall(r"^\| `(.*?)` \| `(.*?)` \|", PAGE, re.MULTILINE))
def test_every_spec_of_the_table_is_the_class_beside_it(row):
    spec, expression = (cell.replace("\\|", "|") for cell in row)
    assert repr(parse(spec)).split("(")[0] == expression.split("(")[0]
    assert parse(spec).spec == spec
