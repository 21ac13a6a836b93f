"""The Python of the README runs as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp

from prompt_jax import FrozenT5, SoftPrompt
from prompt_jax.models.t5 import T5Config

ROOT = Path(__file__).resolve().parents[1]


def test_python_of_the_readme(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (model,) = re.findall(r'from_pretrained\("([^"]+)"\)', code)
    (prompt,) = re.findall(r'SoftPrompt\.load\("([^"]+)"', code)

    config = T5Config(vocab_size=384, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    FrozenT5.from_config(config).save_pretrained(tmp_path / model)
    byte_tokenizer = {"tokenizer_class": "ByT5Tokenizer"}
    (tmp_path / model / "tokenizer_config.json").write_text(json.dumps(byte_tokenizer), "utf-8")
    (tmp_path / prompt).parent.mkdir(parents=True, exist_ok=True)
    SoftPrompt(jnp.ones((3, 16), jnp.float32)).save(tmp_path / prompt)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n"), "the example prints an answer"
