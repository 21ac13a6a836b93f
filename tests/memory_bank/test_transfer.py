"""Transfer modes: what is tuned of a trained bank, and how it is read afterwards."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from prompt_jax import memory_bank as mb

RNG = np.random.default_rng(0)
BANK = {
    "values": RNG.normal(size=(6, 2, 8)).astype(np.float32),
    "keys": RNG.normal(size=(6, 8)).astype(np.float32),
}
CONSTS = {"centre": np.zeros(8, np.float32)}


def retrieved():
    indices = jnp.asarray([[4, 1], [4, 0]])
    bank = mb.MemoryBank(BANK["keys"], BANK["values"])
    return mb.Retrieved(mb.gather(bank, indices), jnp.zeros((2, 8)), indices)


def unread():
    raise AssertionError("nothing has to be retrieved")


def test_whole_bank_and_zero_shot_start_from_all_of_it():
    for transfer in (mb.WholeBank(), mb.ZeroShot()):
        params, consts = transfer.start(BANK, CONSTS, unread)
        assert params.keys() == BANK.keys()
        assert all(params[name] is leaf for name, leaf in BANK.items())
        assert consts == CONSTS
        assert mb.whole_bank(params, consts) == params
        assert mb.bank_size(params, consts) == 6
    assert mb.WholeBank.tunes
    assert not mb.ZeroShot.tunes


def test_retrieved_slots_are_tuned_among_constant_ones():
    params, consts = mb.RetrievedSlots().start(BANK, CONSTS, retrieved)
    # Two templates of two slots are at most four: one more than they retrieve fills up.
    assert consts["where"].tolist() == [4, 1, 0, 2]
    np.testing.assert_array_equal(params["values"], BANK["values"][[4, 1, 0, 2]])
    tuned = mb.whole_bank({"values": params["values"] + 1}, consts)
    expected = BANK["values"].copy()
    expected[[4, 1, 0, 2]] += 1
    np.testing.assert_array_equal(tuned["values"], expected)
    assert tuned["keys"] is BANK["keys"]
    assert mb.bank_size(params, consts) == 6


def test_retrieved_prompt_is_tuned_without_the_bank():
    params, consts = mb.RetrievedPrompt().start(BANK, CONSTS, retrieved)
    np.testing.assert_array_equal(params["prompt"], BANK["values"][[4, 1]].reshape(4, 8))
    assert consts == {}
