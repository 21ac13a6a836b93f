"""Files of trained row-wise methods: equal prompts after loading, and which files are refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax import store
from prompt_jax.data.batching import EvalRows
from prompt_jax.errors import ConfigError, PromptError
from prompt_jax.evaluation.sweep import embed_rows
from prompt_jax.methods import Context, PromptTuning, Spt, SptFull, TemplateTokens, trained
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import PromptRecord, SoftPrompt

METHOD = Spt(slots=6, tokens=2, query="instance", temperature=0.1)
TEMPLATES = (TemplateTokens("a", "t", (40, 60)), TemplateTokens("b", "t", (41, 70)))


def example(**changes):
    """A method whose every parameter has moved."""
    lm = toy.tiny_t5()
    context = Context(lm, toy.prompt(), 0, "mixture", 0, {}, TEMPLATES, TEMPLATES)
    params, consts = METHOD.init(context)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32), params)
    record = PromptRecord(lm.weights_hash, "tiny", "as asked for", "one", d_model=toy.D)
    made = trained.TrainedMethod(METHOD, params, consts, record)
    return dataclasses.replace(made, **changes)


def prompts_of(method):
    """Prompts of three rows of different tokens, [3, L, D]."""
    ids = np.asarray([[41, 50, 51, 1], [80, 81, 82, 1], [43, 44, 1, 0]], np.int32)
    zero = np.zeros(3, np.int32)
    rows = embed_rows(toy.tiny_t5(), EvalRows(ids, (ids > 0).astype(np.int32), zero, zero))
    state = method.state(toy.tiny_t5()).state
    return np.asarray(method.prompt_fn(state, jnp.zeros(3, jnp.int32), rows))


def rewrite(path, facts=None, arrays=None):
    """A sound file with other content."""
    text, known = store.unpack(path.read_bytes())
    store.write(path, {**json.loads(text), **(facts or {})}, known if arrays is None else arrays)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "m.safetensors"
    trained.save(path, example())
    return path


@pytest.mark.slow
def test_loaded_methods_compute_the_prompts_of_the_saved_ones_bit_for_bit(path):
    before, after = example(), trained.load(path, model=toy.tiny_t5())
    assert after.method == METHOD
    assert after.record == before.record.replace(tokens=toy.L)
    prompts = prompts_of(after)
    assert prompts.shape == (3, toy.L, toy.D)
    assert len(np.unique(prompts, axis=0)) == 3
    np.testing.assert_array_equal(prompts, prompts_of(before))
    assert trained.read_record(path) == after.record


def test_equal_methods_are_equal_files(path, tmp_path):
    trained.save(tmp_path / "again", example())
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_other_weights_are_refused(path):
    other = FrozenT5.from_config(toy.CONFIG, seed=8, name="other")
    with pytest.raises(PromptError, match=r"was made for base model .* \(tiny\)"):
        trained.load(path, model=other)
    assert trained.load(path, model=other, allow_other_model=True).method == METHOD
    wide = FrozenT5.from_config(dataclasses.replace(toy.CONFIG, d_model=64), name="wide")
    with pytest.raises(PromptError, match="has width 32, but wide has d_model 64"):
        trained.load(path, model=wide, allow_other_model=True)


def test_damage_is_never_silent(path):
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(60):
        raw = bytearray(good)
        where = int(rng.integers(len(raw)))
        raw = raw[:where] if trial % 3 == 0 else raw
        if trial % 3:
            raw[where] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with pytest.raises(PromptError, match=r"truncated, damaged|is damaged|without a seal"):
            trained.load(path, model=toy.tiny_t5())
        assert trained.read_record(path) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("elsewhere(slots=6)", "not registered here: unknown method 'elsewhere'"),
        ("spt(slots=6,unknown=2)", "has no option 'unknown'"),
        ("os.system('touch executed')", "is not of the form name"),
        ("spt(slots=__import__('os').mkdir('executed'))", "must be a whole number"),
        ("prompt_tuning", "is no row-wise method here"),
        ("spt_full(slots=6,tokens=2)", "is no row-wise method here"),
        ("spt(slots=6,tokens=2,query=instance,tied=true)", "tied slots need tokens=1"),
        ("spt(slots=6,tokens=1,query=instance,tied=true)", "computes prompts of another length"),
    ],
)
def test_methods_that_cannot_be_made_are_refused(path, spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rewrite(path, {"method": spec})
    with pytest.raises(PromptError, match=message) as error:
        trained.load(path, model=toy.tiny_t5())
    assert str(path) in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_parameters_of_another_version_of_the_method_are_refused(path):
    _, arrays = store.unpack(path.read_bytes())
    rewrite(path, arrays={name: x for name, x in arrays.items() if name != "params/values"})
    with pytest.raises(PromptError, match=r"are not those of 'spt\(.*KeyError\('values'\)"):
        trained.load(path, model=toy.tiny_t5())
    rewrite(path, arrays={**arrays, "params/values": arrays["params/values"][..., :8]})
    with pytest.raises(PromptError, match=r"computes prompts of shape \(1, 4, 8\)"):
        trained.load(path, model=toy.tiny_t5())


def test_prompts_and_methods_are_not_mistaken_for_each_other(path, tmp_path):
    with pytest.raises(PromptError, match="A trained row-wise method can be given to"):
        SoftPrompt.load(path)
    SoftPrompt(toy.prompt()).save(tmp_path / "prompt")
    with pytest.raises(PromptError, match=r"holds no trained method; read prompts with SoftPrompt"):
        trained.load(tmp_path / "prompt", model=toy.tiny_t5())
    assert trained.read_record(tmp_path / "prompt") is None
    with pytest.raises(PromptError, match="there is no file"):
        trained.load(tmp_path / "none", model=toy.tiny_t5())


@dataclasses.dataclass(frozen=True)
class Unregistered(Spt):
    """A method that no spec names."""

    name = "unregistered"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (PromptTuning(), "does not compute a prompt of each row"),
        (SptFull(slots=6, tokens=2), "does not compute a prompt of each row for a frozen model"),
        (Unregistered(slots=6, tokens=2, query="instance"), "unknown method 'unregistered'"),
    ],
)
def test_methods_that_could_not_be_loaded_are_not_saved(method, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        trained.save(tmp_path / "m", example(method=method, params={}, consts={}))
    assert not (tmp_path / "m").exists()


def test_numbers_that_are_not_finite_are_not_saved(tmp_path):
    made = example()
    bad = {**made.params, "values": np.full_like(made.params["values"], np.nan)}
    with pytest.raises(PromptError, match="params/values holds NaN or infinite numbers"):
        trained.save(tmp_path / "m", dataclasses.replace(made, params=bad))
    assert not (tmp_path / "m").exists()


def test_other_code_of_the_method_is_reported(path, caplog):
    """A file holds parameters; what they mean is in the code."""
    lm = toy.tiny_t5()

    def said():
        found = [text for text in caplog.messages if "the method" in text]
        caplog.clear()
        return found

    trained.load(path, model=lm)
    assert said() == []
    for made_by, why in (("0" * 16, "by other code of"), (None, "by code that is not known, of")):
        rewrite(path, {"method_code": made_by})
        trained.load(path, model=lm)
        assert said() == [
            f"{path} was written {why} the method '{METHOD.spec}': its answers may not be those"
            " that it was tested with. Train it again, or evaluate it."
        ]
