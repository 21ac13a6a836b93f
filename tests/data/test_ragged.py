import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.data.ragged import Ragged

ROWS = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6), max_size=8)


def unpack(ragged):
    return [ragged[i].tolist() for i in range(len(ragged))]


@given(ROWS)
def test_ragged_round_trip(rows):
    ragged = Ragged.of(rows)
    assert unpack(ragged) == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert (ragged.values.dtype, ragged.offsets.dtype) == (np.int32, np.int64)


@given(ROWS.filter(len), st.data())
def test_take_and_padded_are_gathers(rows, draw):
    ragged = Ragged.of(rows)
    picked = draw.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    assert unpack(ragged.take(picked)) == [rows[i] for i in picked]
    extra = draw.draw(st.integers(0, 3))
    width = max((len(rows[i]) for i in picked), default=0) + extra
    matrix = ragged.padded(picked, width, -7)
    assert matrix.shape == (len(picked), width)
    assert matrix.dtype == np.int32
    assert matrix.tolist() == [rows[i] + [-7] * (width - len(rows[i])) for i in picked]


@given(st.lists(ROWS, max_size=4))
def test_concat(parts):
    joined = Ragged.concat([Ragged.of(part) for part in parts])
    assert unpack(joined) == [row for part in parts for row in part]
    assert (joined.values.dtype, joined.offsets.dtype) == (np.int32, np.int64)


def test_padded_width_and_no_truncation():
    ragged = Ragged.of([[1, 2, 3], [4], []])
    assert ragged.padded([1, 2], fill=9).tolist() == [[4], [9]]
    assert ragged.padded([2]).shape == (1, 0)
    with pytest.raises(ValueError, match="a row of 3 does not fit in 2"):
        ragged.padded([0], 2)


def test_getitem_negative_and_out_of_range():
    ragged = Ragged.of([[1], [2, 3]])
    assert ragged[-1].tolist() == [2, 3]
    with pytest.raises(IndexError):
        ragged[2]
    assert len(list(ragged)) == 2


@pytest.mark.parametrize(
    ("values", "offsets"),
    [([1, 2], [0, 1]), ([1], [1, 1]), ([1, 2], [0, 2, 1, 2]), ([1], []), ([[1]], [0, 1])],
)
def test_inconsistent_arrays_raise(values, offsets):
    with pytest.raises(ValueError, match="offsets"):
        Ragged(np.asarray(values, np.int32), np.asarray(offsets, np.int64))
