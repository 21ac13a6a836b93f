"""What must never be in the tree, and facts that stand in several files and have to agree."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import prompt_jax

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# Directories that git ignores, for trees without git (a source archive).
IGNORED = re.compile(r"(^|/)(\.[^/]+|__pycache__|build|dist|site|runs|[^/]+\.egg-info)/")


def tree() -> list[Path]:
    """The files that belong to the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = ""
    if shutil.which("git") and (ROOT / ".git").exists():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        listing = done.stdout
    if listing:
        names = listing.split("\0")
    else:
        found = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
        names = [name for name in found if not IGNORED.search(name) or name.startswith(".ci/")]
    return sorted(path for name in names if name and (path := ROOT / name).is_file())


TREE = tree()
PYTHON = [path for path in TREE if path.suffix == ".py"]


def texts() -> Iterator[tuple[str, str]]:
    """Yields (name, text) of every text file of the tree."""
    for path in TREE:
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


# The expressions are written so that none of them matches its own source.
FORBIDDEN_TEXT = {
    "a path of somebody's machine": re.compile(r"(?<![\w.$}-])/(?:home|root|Users|work)/[\w.]"),
    "a temporary path": re.compile(r"(?<![\w.$}-])/(?:tmp|var/tmp)/[\w.]"),
    "an address of a package mirror": re.compile(
        r"index-url[= ]+['\"]?https?://(?!download\.pytorch\.org/)|find-links[= ]+\S|^deb http",
        re.M,
    ),
    "a secret": re.compile(r"\bhf_[A-Za-z0-9]{30,}|BEGIN [A-Z ]*PRIVATE [K]EY"),
}


@pytest.mark.parametrize("what", FORBIDDEN_TEXT)
def test_the_tree_holds_no(what: str) -> None:
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name, text in texts()
        for match in FORBIDDEN_TEXT[what].finditer(text)
    ]
    assert found == []


def test_the_forbidden_texts_are_found() -> None:
    slash = "/"
    samples = {
        "a path of somebody's machine": f"open('{slash}home/ann/x')",
        "a temporary path": f"cp a {slash}tmp/b",
        "an address of a package mirror": "pip install --extra-index-url" + " https://mirror.test",
        "a secret": "hf_" + "a" * 34,
    }
    for what, sample in samples.items():
        assert FORBIDDEN_TEXT[what].search(sample), what


UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


def unsafe(source: str) -> list[str]:
    """Lists what in `source` would run code that a data file brings along."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").split(".")[0]}
            found += [f"{node.lineno}: import {name}" for name in roots & UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
        if called in ("eval", "exec"):
            found.append(f"{node.lineno}: {called}")
        # Writing such a file is how the tests make one that has to be refused.
        if keywords.get("allow_pickle", "False") != "False" and "save" not in called:
            found.append(f"{node.lineno}: allow_pickle")
        if keywords.get("trust_remote_code", "False") != "False":
            found.append(f"{node.lineno}: trust_remote_code")
        if called == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{node.lineno}: torch.load without weights_only")
        if called in ("yaml.load", "yaml.unsafe_load", "tarfile.extractall"):
            found.append(f"{node.lineno}: {called}")
    return found


def test_nothing_in_the_tree_loads_code_from_data() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in PYTHON
        if (lines := unsafe(path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "yaml.load(text, Loader)",
    ],
)
def test_unsafe_code_is_found(line: str) -> None:
    assert len(unsafe(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path, allow_pickle=False)",
        "np.save(path, array, allow_pickle=True)",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "model.eval()",
    ],
)
def test_safe_code_passes(line: str) -> None:
    assert unsafe(line) == []


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert PYPROJECT["project"]["version"] == prompt_jax.__version__
    assert citation["version"] == prompt_jax.__version__
    assert f"## {prompt_jax.__version__}" in changelog


def test_citation_names_every_method() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"]
    papers = citation["references"]
    assert len({paper["title"] for paper in papers}) == len(papers) >= 10
    for paper in papers:
        assert paper.keys() >= {"type", "title", "authors", "year"}, paper
        assert all(author.keys() >= {"family-names"} for author in paper["authors"])
        assert "doi" in paper or "url" in paper or "identifiers" in paper, paper["title"]


def test_license_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def constraints() -> list[Requirement]:
    """The pins of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def canonical(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_constraints_are_exact_and_meet_the_ranges(python: str) -> None:
    pins: dict[str, str] = {}
    for pin in constraints():
        assert pin.url is None
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert canonical(pin.name) not in pins, f"{pin.name} is pinned twice for {python}"
            pins[canonical(pin.name)] = specifier.version
    project = PYPROJECT["project"]
    installed = [*project["dependencies"]]
    for extra in ("dev", "tfds", "docs", "parity"):
        installed += project["optional-dependencies"][extra]
    for text in installed:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonical(requirement.name)]), text


def test_merging_constraints() -> None:
    path = ROOT / "tools" / "merge_constraints.py"
    spec = importlib.util.spec_from_file_location("merge_constraints", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    freezes = {
        "3.11": "same==1\nmoved==1\nDotted_Name==1\ntwice==1\nonly==2.13.0+cpu",
        "3.12": "same==1\nmoved==2\ndotted-name==1\ntwice==2",
        "3.13": "same==1\nmoved==2\ndotted-name==1\ntwice==3",
    }
    assert tool.merge(freezes) == [
        "dotted-name==1",
        'moved==1; python_version < "3.12"',
        'moved==2; python_version >= "3.12"',
        "only==2.13.0",
        "same==1",
        'twice==1; python_version < "3.12"',
        'twice==2; python_version >= "3.12" and python_version < "3.13"',
        'twice==3; python_version >= "3.13"',
    ]


def test_no_accelerator_build_of_jax_is_required() -> None:
    for text in PYPROJECT["project"]["dependencies"]:
        requirement = Requirement(text)
        assert not requirement.extras, f"{text} would replace the user's jax"
        assert canonical(requirement.name) not in ("torch", "transformers", "tensorflow")


def test_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for name in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        text = (ROOT / name).read_text("utf-8")
        used = set(re.findall(r"(?:`|^ {4,})make ([a-z-]+)", text, re.M))
        assert used <= targets, name
    assert {"quickstart", "test"} <= targets
