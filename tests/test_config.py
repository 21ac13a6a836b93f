"""Overrides, hashes and config files."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prompt_jax import config as configs
from prompt_jax import configs as packaged
from prompt_jax.config import digest, keys, load_config, override, parse_value, split_list, to_dict
from prompt_jax.config.suggestions import OTHER_NAMES
from prompt_jax.errors import ConfigError
from prompt_jax.recipes import ExperimentConfig
from prompt_jax.recipes.config import DataConfig, PromptConfig
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig


@dataclass(frozen=True)
class Inner:
    steps: int = 3
    rate: float = 0.5
    kind: Literal["one", "two"] = "one"


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    flag: bool = False
    root: str | None = "here"
    limit: int | None = None
    numbers: tuple[int, ...] = (1, 2)
    names: tuple[str, ...] = ()
    low: int = 0
    high: int = 10
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError("low must not exceed high.")


# Values


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("name=a b", "name", "a b"),
        ("name=", "name", ""),
        ("name=a=b", "name", "a=b"),
        (" name = spaced ", "name", "spaced"),
        ("flag=true", "flag", True),
        ("flag=Off", "flag", False),
        ("flag=1", "flag", True),
        ("root=none", "root", None),
        ("root=null", "root", None),
        ("root=", "root", ""),
        ("root=/data", "root", "/data"),
        ("limit=7", "limit", 7),
        ("limit=null", "limit", None),
        ("numbers=3", "numbers", (3,)),
        ("numbers=16,0", "numbers", (16, 0)),
        ("numbers=[1, 2]", "numbers", (1, 2)),
        ("numbers=", "numbers", ()),
        ("names=a(b=c, d=2), mr", "names", ("a(b=c, d=2)", "mr")),
        ("inner.steps=2000", "inner.steps", 2000),
        ("inner.steps=2e3", "inner.steps", 2000),
        ("inner.steps=-1", "inner.steps", -1),
        ("inner.rate=1e-3", "inner.rate", 1e-3),
        ("inner.rate=2", "inner.rate", 2.0),
        ("inner.kind=two", "inner.kind", "two"),
    ],
)
def test_override_of_every_field_type(assignment, path, value):
    result = override(Outer(), [assignment])
    for part in path.split("."):
        result = getattr(result, part)
    assert result == value
    assert type(result) is type(value)


def test_override_copies_and_the_last_assignment_wins():
    config = Outer()
    changed = override(config, ["inner.steps=1", "inner.rate=2", "inner.steps=9", "name=n"])
    assert config == Outer()
    assert changed == Outer(name="n", inner=Inner(steps=9, rate=2.0))


def test_override_validates_after_all_assignments():
    """A pair that is valid only together may be given in either order."""
    assert override(Outer(), ["low=20", "high=30"]) == Outer(low=20, high=30)
    assert override(Outer(), ["high=30", "low=20"]) == Outer(low=20, high=30)
    with pytest.raises(ConfigError, match="low must not exceed"):
        override(Outer(), ["low=20"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.stpes=3", r"unknown option 'inner.stpes'.*Did you mean 'inner.steps'"),
        ("stpes=3", r"unknown option 'stpes'"),
        ("iner.rate=3", r"Did you mean 'inner.rate'"),
        ("zzzzzz=3", r"unknown option 'zzzzzz' in overrides\.$"),
        ("name.x=3", r"'name' has no parts"),
        ("inner=3", r"'inner' is a group; set one of its parts \(inner.steps, inner.rate"),
        ("inner.steps", r"not of the form key=value"),
        ("", r"not of the form key=value"),
        ("=3", r"unknown option ''"),
        ("inner..steps=3", r"unknown option"),
        ("inner.steps=1.5", r"'inner.steps' must be a whole number, not '1.5'"),
        ("inner.steps=nan", r"whole number"),
        ("inner.steps=2147483648", r"'inner.steps' must lie within ±2,147,483,647, not be 2147"),
        ("inner.steps=1e20", r"must lie within"),
        ("inner.steps=inf", r"whole number"),
        ("inner.steps=", r"whole number"),
        ("limit=", r"'limit' must be a whole number, not ''"),
        ("inner.rate=fast", r"'inner.rate' must be a number"),
        ("numbers=1,x", r"'numbers' must be a whole number, not 'x'"),
        ("flag=maybe", r"'flag' must be true or false, not 'maybe'"),
        ("inner.kind=tow", r"one of one, two, not 'tow'.*Did you mean 'two'"),
    ],
)
def test_override_errors_name_the_key(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(Outer(), [assignment])


EXPERIMENT = ExperimentConfig(targets=("mr",), methods=("prompt_tuning",))
KEYS = keys(EXPERIMENT)


def test_keys_are_leaves():
    assert {"target.optimizer.learning_rate", "data.root", "seeds"} <= set(KEYS)
    assert not {"target", "target.optimizer", "data"} & set(KEYS)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.builds(
                lambda key, value: f"{key}={value}",
                st.one_of(st.sampled_from(KEYS), st.text(max_size=12)),
                st.one_of(
                    st.text(max_size=20),
                    st.sampled_from(
                        [
                            "nan",
                            "inf",
                            "-inf",
                            "1e400",
                            "9" * 5000,
                            "0x1",
                            "1_0",
                            "²",
                            "[",
                            "]",
                            "spot(",
                            "spot(top_k=0)",
                            "spot(top_k=1e9)",
                            "a=nan",
                            "a=-1",
                            "none",
                            "-0",
                        ]
                    ),
                    st.floats().map(str),
                    st.integers().map(str),
                ),
            ),
        ),
        max_size=4,
    )
)
@example(["seeds=" + "9" * 5000])
@example(["shots=" + "9" * 5000])
@example(["methods=spot(top_k=" + "9" * 5000 + ")"])
def test_only_config_errors_escape(assignments):
    try:
        result = override(EXPERIMENT, assignments)
    except ConfigError:
        return
    assert isinstance(result, ExperimentConfig)


@given(st.lists(st.text(alphabet="ab()[], =", max_size=12), max_size=4))
def test_split_list_keeps_all_characters_except_commas_and_spaces(parts):
    text = ",".join(parts)
    joined = "".join(split_list(text))
    assert sorted(joined.replace(",", "").replace(" ", "")) == sorted(
        text.replace(",", "").replace(" ", "")
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        (" , ,", ()),
        ("a, b", ("a", "b")),
        ("f(a, b), g[c, d],e", ("f(a, b)", "g[c, d]", "e")),
        ("f(g(a, b), c)", ("f(g(a, b), c)",)),
        ("a), b", ("a)", "b")),
        ('"a, (b.toml", c', ("a, (b.toml", "c")),
        ('c , "a,b"', ("c", "a,b")),
        ('"a, b', ('"a', "b")),
        ('say "a", b', ('say "a"', "b")),
        ('"", a', ("a",)),
    ],
)
def test_split_list(text, parts):
    assert split_list(text) == parts


def test_names_may_be_given_as_one_text():
    config = ExperimentConfig(
        sources="sandbox/sentiment", targets="sandbox/topic, mr", methods="spot", shots=4
    )
    assert config == ExperimentConfig(
        sources=("sandbox/sentiment",),
        targets=("sandbox/topic", "mr"),
        methods=("spot",),
        shots=(4,),
    )
    changed = override(config, ['targets="tasks, old/own.toml",mr'])
    assert changed.targets == ("tasks, old/own.toml", "mr")


def test_parse_value_of_a_literal():
    assert parse_value("one", Literal["one", "two"], "k") == "one"


# Hashes


def test_digest_is_stable_and_depends_on_every_field():
    # The text that is hashed: a change would orphan every stored artefact.
    text = b'["a", 1, {"b": [1.5, null]}]'
    assert digest("a", 1, {"b": [1.5, None]}) == hashlib.sha256(text).hexdigest()[:16]
    assert digest(Inner()) == digest(Inner())
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    different = [
        digest(Inner()),
        digest(Inner(steps=4)),
        digest(Inner(kind="two")),
        digest(Outer()),
        digest(Outer(inner=Inner(rate=0.25))),
        digest(),
        digest(None),
        digest("None"),
        digest([]),
    ]
    assert len(set(different)) == len(different)
    with pytest.raises(TypeError, match="object"):
        digest(object())


def test_to_dict_is_json():
    assert to_dict(Outer(numbers=(4, 5)))["numbers"] == [4, 5]
    assert to_dict(Outer())["inner"] == {"steps": 3, "rate": 0.5, "kind": "one"}


# Config files


def write(folder, text, name="my_config.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_load_config_of_a_file(tmp_path):
    path = write(tmp_path, "def get_config():\n    return {'answer': 42}\n")
    before = set(sys.modules)
    assert load_config(path) == {"answer": 42}
    # Classes of the file find their source there.
    assert set(sys.modules) - before <= {"prompt_jax_config_my_config"}


VARIANTS = """
from pathlib import Path
from typing import Any, Literal
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    text: str
    seeds: int = 3

def get_config(variant: Literal["main", "ablations"] = "main", suite: str = "s", k: int = 1):
    return Config(f"{variant} {suite} {k + 1}")
"""


def test_load_config_arguments_choose_a_variant(tmp_path):
    path = write(tmp_path, VARIANTS)
    assert load_config(path).text == "main s 2"
    assert load_config(f"{path}:ablations").text == "ablations s 2"
    changed = load_config(f"{path}:ablations", ["seeds=5", "k=2", "suite = real"])
    assert (changed.text, changed.seeds) == ("ablations real 3", 5)
    assert load_config(path, ["variant=ablations"]).text == "ablations s 2"
    nested = tmp_path / "a.py:b"
    nested.mkdir()
    assert load_config(f"{write(nested, VARIANTS)}:ablations").text == "ablations s 2"


@pytest.mark.parametrize(
    ("variant", "assignments", "message"),
    [
        (":ablation", (), "'variant' must be one of main, ablations.*Did you mean 'ablations'"),
        (":", (), "'variant' must be one of main, ablations"),
        (":main", ("variant=main",), "'variant' of the config .* is given more than once"),
        ("", ("k=many",), "'k' must be a whole number"),
        ("", ("suit=real",), "unknown option 'suit'"),
        ("", ("seeds",), "'seeds' is not of the form key=value"),
    ],
)
def test_load_config_wrong_arguments_raise(tmp_path, variant, assignments, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, VARIANTS) + variant, assignments)


def test_load_config_without_arguments_has_no_variants(tmp_path):
    path = write(tmp_path, "def get_config():\n    return {}\n")
    with pytest.raises(ConfigError, match="has no variants, so ':small' is not understood"):
        load_config(f"{path}:small")
    with pytest.raises(ConfigError, match="quickstart has no variants"):
        load_config("quickstart:small")
    with pytest.raises(ConfigError, match="returns a dict, which has no options"):
        load_config(path, ["seeds=2"])
    path = write(tmp_path, "def get_config(suite):\n    return {}\n")
    with pytest.raises(ConfigError, match=r"needs suite=\.\.\."):
        load_config(path)


def test_load_config_of_packaged_configs():
    folder = Path(packaged.__path__[0])
    names = [path.stem for path in folder.glob("[a-z]*.py")]
    assert names
    for name in names:
        assert isinstance(load_config(name), ExperimentConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no function get_config"),
        ("x = ", "does not run"),
        ("import surely_no_such_module", "does not run.*surely_no_such_module"),
        ("raise SystemError('x')", "does not run"),
        (
            "def get_config():\n    return 1 / 0",
            r"get_config\(\) of .* fails \(line 2 of my_config",
        ),
        (
            "from prompt_jax.errors import ConfigError\n"
            "def get_config():\n    raise ConfigError('mine')",
            r"fails: mine$",
        ),
    ],
)
def test_load_config_of_a_broken_file_raises(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_load_config_of_a_missing_file_raises(tmp_path):
    with pytest.raises(ConfigError, match="there is no config file"):
        load_config(str(tmp_path / "none.py"))
    known = sorted(path.stem for path in Path(packaged.__path__[0]).glob("[a-z]*.py"))
    with pytest.raises(ConfigError, match=f"neither a Python file.*Did you mean '{known[0]}'"):
        load_config(known[0] + "s")


# Modules beside a config file


def test_a_config_imports_what_lies_beside_it(tmp_path):
    """Its own folder, and the folder of its package, are searched while it runs, and no longer."""
    package = tmp_path / "studies_of_mine"
    package.mkdir()
    for name in ("__init__.py", "factor_of_mine.py"):
        (package / name).write_text("FACTOR = 3\n")
    text = """
from studies_of_mine import factor_of_mine as same
def get_config():
    import factor_of_mine
    return {"answer": 14 * factor_of_mine.FACTOR, "same": same.FACTOR}
"""
    before = list(sys.path)
    assert load_config(write(package, text)) == {"answer": 42, "same": 3}
    assert sys.path == before
    with pytest.raises(ConfigError, match="no_such_module_of_mine"):
        load_config(write(package, "import no_such_module_of_mine"))
    assert sys.path == before


# Suggestions


STAGES = ("source", "probe", "target", "few_shot", "fine_tuning", "fine_tuning_few_shot")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr", [f"{stage}.optimizer.learning_rate" for stage in STAGES]),
        ("learning_rate", [f"{stage}.optimizer.learning_rate" for stage in STAGES]),
        ("learning-rate", [f"{stage}.optimizer.learning_rate" for stage in STAGES]),
        ("target.lr", ["target.optimizer.learning_rate"]),
        ("target.optimizer.lr", ["target.optimizer.learning_rate"]),
        ("few_shot.epochs", ["few_shot.steps"]),
        ("batch_size", [f"{stage}.batch_size" for stage in STAGES]),
        ("epochs", [f"{stage}.steps" for stage in STAGES]),
        ("model_name_or_path", ["model"]),
        ("output_dir", ["out"]),
        ("seed", ["seeds", "first_seed"]),
        ("task", ["targets", "sources"]),
        ("num_virtual_tokens", ["prompt.tokens"]),
        ("tokens", ["prompt.tokens"]),
        ("max_length", ["data.max_input_tokens"]),
        ("shot", ["shots"]),
        ("zzzzz", []),
        ("", []),
        ("model.", []),
    ],
)
def test_keys_meant_by_the_words_of_other_programs(word, meant):
    assert configs.keys_meant(word, KEYS) == meant


def test_every_other_name_means_keys_that_exist():
    for word, names in OTHER_NAMES.items():
        found = configs.keys_meant(word, KEYS)
        assert found, f"{word} leads to {names}, which no option ends in"
        assert word not in KEYS


def test_an_unknown_option_lists_all_that_may_be_meant():
    with pytest.raises(ConfigError) as caught:
        override(EXPERIMENT, ["epochs=3"])
    assert str(caught.value) == (
        "unknown option 'epochs' in overrides. Did you mean one of these (a budget counts optimizer"
        " steps): source.steps, probe.steps, target.steps, few_shot.steps, fine_tuning.steps or"
        " fine_tuning_few_shot.steps?"
    )


def test_an_unknown_option_may_mean_an_argument_of_the_config(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown option 'suit'.* Did you mean 'suite'"):
        load_config(write(tmp_path, VARIANTS), ["suit=real"])


# Tables


def test_a_table_is_the_inverse_of_to_dict():
    whole = load_config("glue_superglue")
    changed = override(whole, ["data.root=here", "minimum_effect=0.1", "methods=spot(top_k=2)"])
    for config in (whole, changed):
        assert configs.from_table(ExperimentConfig, to_dict(config), "t") == config


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"name": "n", "inner": {"rate": 2}, "numbers": [4], "limit": null}'),
        ("a.yaml", "name: n\ninner:\n  rate: 2\nnumbers: [4]\nlimit:\n"),
        ("a.yml", "name: n\ninner: {rate: 2e0}\nnumbers: '4'\nlimit: none\n"),
    ],
)
def test_load_config_of_a_table(tmp_path, name, text):
    if name != "a.json":
        pytest.importorskip("yaml")
    path = write(tmp_path, text, name)
    read = load_config(path, ["name=other"], kind=Outer)
    assert read == Outer(name="other", inner=Inner(rate=2.0), numbers=(4,), limit=None)
    assert type(read.inner.rate) is float
    with pytest.raises(ConfigError, match="is a table, but a Python file is needed"):
        load_config(path)


def test_load_config_of_a_run_directory(tmp_path):
    write(tmp_path, '{"name": "n"}', "config.json")
    assert load_config(str(tmp_path), kind=Outer) == Outer(name="n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"stpes": 1}', r"unknown option 'stpes'\. Did you mean 'inner.steps'"),
        ('{"inner": {"stpes": 1}}', r"unknown option 'inner.stpes'\. Did you mean 'inner.steps'"),
        ('{"inner.steps": 1}', r"'inner.steps'\. Tables are nested: inner: \{steps: \.\.\.\}\."),
        ('{"inner": 1}', "'inner' must be a table, not 1"),
        ('{"inner": {"steps": 1.5}}', "'inner.steps' must be a whole number, not 1.5"),
        ('{"inner": {"steps": true}}', "'inner.steps' must be a whole number, not True"),
        ('{"inner": {"steps": "x"}}', "'inner.steps' must be a whole number, not 'x'"),
        ('{"inner": {"kind": "tow"}}', "one of one, two, not 'tow'"),
        ('{"name": false}', "'name' must be a text, not False"),
        ('{"flag": 1}', "'flag' must be true or false, not 1"),
        ('{"numbers": 3}', "'numbers' must be a list, not 3"),
        ('{"numbers": [1, null]}', "'numbers.1' must be a whole number, not nothing"),
        ('{"name": "a", "name": "b"}', "names 'name' twice"),
        ("[1]", "must hold a table of options, not a list"),
        ("{", "is not valid JSON"),
        ('{"low": 20}', "low must not exceed"),
    ],
)
def test_load_config_of_a_wrong_table_raises(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text, "a.json"), kind=Outer)


def test_load_config_of_wrong_yaml_raises(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    for text, message in (
        ("name: a\nname: b", "names 'name' twice"),
        ("name: no", "'name' must be a text, not False"),
        ("1: a", "keys must be texts"),
        ("name: [", "is not valid YAML"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(write(tmp_path, text, "a.yaml"), kind=Outer)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="needs the package pyyaml: pip install pyyaml"):
        load_config(write(tmp_path, "name: a", "a.yaml"), kind=Outer)


# Keys with their meaning


def test_describe_gives_every_key_a_type_a_value_and_a_meaning():
    described = configs.describe(EXPERIMENT)
    assert [key.name for key in described] == KEYS
    assert [key.name for key in described if not key.doc] == []
    assert not any("\n" in key.doc for key in described)
    by_name = {key.name: key for key in described}
    assert by_name["target.steps"][1:] == ("whole number", "300", "optimizer steps")
    assert by_name["dtype"][1:3] == ("float32 | bfloat16 | auto", "float32")
    assert by_name["shots"].value == "16,0"
    assert by_name["data.root"][1:3] == ("text or none", "none")
    changed = override(EXPERIMENT, [f"{key.name}={key.value}" for key in described if key.value])
    assert to_dict(changed) == to_dict(EXPERIMENT)  # a value is written as an override reads it


# Configs that are made in Python


def made(**values: Any) -> ExperimentConfig:
    return ExperimentConfig(**{"targets": "mr", "methods": "prompt_tuning", **values})


def test_values_of_python_become_those_of_the_fields() -> None:
    config = made(
        shots=[np.int64(16), 32.0],
        seeds=np.int32(2),
        target=TrainConfig(steps=3e2, optimizer=OptimizerConfig(learning_rate=np.float32(0.5))),
        data=DataConfig(root=Path("rows")),
        minimum_effect=0,
    )
    assert (config.shots, config.seeds, config.data.root) == ((16, 32), 2, "rows")
    assert type(config.shots[0]) is type(config.seeds) is type(config.target.steps) is int
    assert type(config.target.optimizer.learning_rate) is float
    assert to_dict(config)["target"]["steps"] == 300
    assert made(shots=16).shots == (16,)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (made, {"shots": (1.5,)}, "option 'shots.0' must be a whole number, not 1.5"),
        (made, {"seeds": "3"}, "option 'seeds' must be a whole number, not '3'"),
        (made, {"seeds": True}, "option 'seeds' must be a whole number, not True"),
        (made, {"targets": (["mr"],)}, r"option 'targets.0' must be a text, not \['mr'\]"),
        (made, {"dtype": "float16"}, "option 'dtype' must be one of float32, bfloat16"),
        (made, {"target": {"steps": 3}}, "option 'target' must be a TrainConfig, not"),
        (made, {"allow_overlap": "no"}, "option 'allow_overlap' must be true or false, not 'no'"),
        (TrainConfig, {"steps": None}, "option 'steps' must be a whole number, not None"),
        (TrainConfig, {"dropout": "0.1"}, "option 'dropout' must be a number, not '0.1'"),
        (OptimizerConfig, {"learning_rate": "0.3"}, "'learning_rate' must be a number"),
        (OptimizerConfig, {"name": "adam"}, "option 'name' must be one of adamw, adafactor"),
        (OptimizerConfig, {"group_rates": "a=1"}, "option 'group_rates' must be a list"),
        (PromptConfig, {"tokens": 2.5}, "option 'tokens' must be a whole number, not 2.5"),
        (DataConfig, {"train_rows": float("nan")}, "'train_rows' must be a whole number"),
        (DataConfig, {"dev_rows": -5}, "data.dev_rows must not be negative, but is -5"),
        (DataConfig, {"templates": "frist"}, "option 'templates' must be one of first, cycle"),
    ],
)
def test_values_of_another_type_are_refused(kind: Any, values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)
