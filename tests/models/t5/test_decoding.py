from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ModelError
from prompt_jax.models.t5 import FrozenT5

from ..conftest import TINY, load_case

NEW = 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "beams"),
    [
        ("v1_0", "greedy", 1),
        ("v1_1", "greedy", 1),
        ("buckets", "greedy", 1),
        ("v1_0", "beam", 4),
        ("v1_1", "beam", 4),
        ("buckets", "beam", 4),
    ],
)
def test_same_tokens_as_pytorch(name, kind, beams):
    case = load_case(name)
    have = case.lm.generate(*case.rows, case.arrays["prompt"], max_new_tokens=NEW, num_beams=beams)
    np.testing.assert_array_equal(have, case.arrays[kind])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1_1", "layers"])
def test_greedy_tokens_are_the_best_under_teacher_forcing(name):
    case = load_case(name)
    prompt = case.arrays["prompt"]
    tokens = np.asarray(case.lm.generate(*case.rows, prompt, max_new_tokens=NEW))
    logits = np.asarray(case.lm.logits(*case.rows, tokens, prompt))
    for row, scores in zip(tokens, logits, strict=True):
        length = list(row).index(1) + 1 if 1 in row else len(row)
        np.testing.assert_array_equal(scores.argmax(-1)[:length], row[:length])
        assert (row[length:] == 0).all()


@pytest.mark.parametrize(("kind", "beams"), [("greedy", 1), ("beam", 4)])
def test_rows_do_not_depend_on_their_neighbours(v11, kind, beams):
    ids, mask = v11.rows
    order = np.array([2, 2, 0, 1])
    tokens = v11.lm.generate(
        ids[order], mask[order], v11.arrays["prompt"], max_new_tokens=NEW, num_beams=beams
    )
    np.testing.assert_array_equal(tokens, v11.arrays[kind][order])


@pytest.mark.slow
def test_nothing_follows_the_end():
    lm = FrozenT5.from_config(TINY)
    ids = np.full((2, 3), 4)
    hidden = lm.score(
        ids, np.ones_like(ids), np.full((2, 1), 1), observe=frozenset({"hidden"})
    ).hidden[0, 0]
    head = jnp.zeros_like(lm.params["lm_head"]).at[lm.eos_id].set(hidden)
    ends = lm.replace(params={**lm.params, "lm_head": head})
    tokens = np.asarray(ends.generate(ids, np.ones_like(ids), max_new_tokens=300))
    want = np.zeros((2, 300))
    want[:, 0] = lm.eos_id
    np.testing.assert_array_equal(tokens, want)


@pytest.mark.slow
def test_generate_inside_jit_and_in_bf16(v11):
    ids, mask = v11.rows
    narrow = FrozenT5.from_pretrained(v11.path, dtype=jnp.bfloat16)

    @jax.jit
    def run(lm, prompt):
        return lm.generate(ids, mask, prompt, max_new_tokens=4, num_beams=2)

    tokens = run(narrow, v11.arrays["prompt"])
    assert tokens.shape == (4, 4)
    assert tokens.dtype == jnp.int32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"num_beams": 0}, "at least 1"),
        ({"num_beams": 26}, "26 beams need a vocabulary of 52"),
    ],
)
def test_options_that_make_no_sense(tiny, options, message):
    ids = np.ones((1, 2), int)
    with pytest.raises(ModelError, match=message):
        tiny.generate(ids, ids, **options)


def test_real_checkpoint_answers_like_pytorch(shared_dir, torch_t5):
    torch = pytest.importorskip("torch")
    root = shared_dir / "models" / "mini-t5"
    if not root.is_dir():
        pytest.skip("no mini-t5 beside the checkout")
    lm = FrozenT5.from_pretrained(root)
    rows = lm.tokenizer.encode(
        ["sentiment: a gripping , funny and moving film", "topic: stocks fell on wall street"]
    )
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows])
    mask = (ids > 0).astype(int)
    model = torch_t5(root)
    have = np.asarray(lm.generate(ids, mask, max_new_tokens=8, num_beams=4))
    want = model.generate(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=8,
        num_beams=4,
        do_sample=False,
    ).numpy()
    assert lm.tokenizer.decode_batch(have) == lm.tokenizer.decode_batch(want)
    assert lm.tokenizer.decode(have[1]).strip() != ""
