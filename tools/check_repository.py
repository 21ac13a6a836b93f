"""Checks the repository: forbidden content, and consistency between files.

    python tools/check_repository.py

Part of `make lint`. Prints one line per problem and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("dev", "tfds", "docs", "parity")  # pinned in constraints.txt besides the dependencies

# Directories that git ignores, for trees without git (a source archive).
IGNORED = re.compile(r"(^|/)(\.[^/]+|__pycache__|build|dist|site|runs|[^/]+\.egg-info)/")

# No expression matches its own source.
FORBIDDEN_TEXT = {
    "a path of somebody's machine": re.compile(r"(?<![\w.$}-])/(?:home|root|Users|work)/[\w.]"),
    "a temporary path": re.compile(r"(?<![\w.$}-])/(?:tmp|var/tmp)/[\w.]"),
    "an address of a package mirror": re.compile(
        r"index-url[= ]+['\"]?https?://(?!download\.pytorch\.org/)|find-links[= ]+\S|^deb http",
        re.M,
    ),
    "a secret": re.compile(r"\bhf_[A-Za-z0-9]{30,}|BEGIN [A-Z ]*PRIVATE [K]EY"),
}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


def files() -> list[Path]:
    """The files that belong to the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = ""
    if shutil.which("git") and (ROOT / ".git").exists():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        listing = done.stdout
    if listing:
        names = listing.split("\0")
    else:
        below = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
        names = [name for name in below if not IGNORED.search(name) or name.startswith(".ci/")]
    return sorted(path for name in names if name and (path := ROOT / name).is_file())


def forbidden(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields (line, kind, match) of forbidden content in a text."""
    for kind, pattern in FORBIDDEN_TEXT.items():
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, kind, match.group()


def unsafe(source: str) -> list[str]:
    """Calls and imports in `source` that could run code from a data file, as "line: call"."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").split(".")[0]}
            problems += [f"{node.lineno}: import {name}" for name in roots & UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
        if called in ("eval", "exec"):
            problems.append(f"{node.lineno}: {called}")
        # Tests write such files to check that reading them fails.
        if keywords.get("allow_pickle", "False") != "False" and "save" not in called:
            problems.append(f"{node.lineno}: allow_pickle")
        if keywords.get("trust_remote_code", "False") != "False":
            problems.append(f"{node.lineno}: trust_remote_code")
        if called == "torch.load" and keywords.get("weights_only") != "True":
            problems.append(f"{node.lineno}: torch.load without weights_only")
        if called in ("yaml.load", "yaml.unsafe_load", "tarfile.extractall"):
            problems.append(f"{node.lineno}: {called}")
    return problems


def canonical(name: str) -> str:
    """The normalised name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_tree() -> Iterator[str]:
    """Forbidden content, and code that could run code from data."""
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for line, kind, match in forbidden(text):
            yield f"{name}:{line}: {kind}: {match}"
        if path.suffix == ".py":
            yield from (f"{name}:{problem}" for problem in unsafe(text))


def check_versions(project: dict[str, Any]) -> Iterator[str]:
    """Equal versions in pyproject.toml, the package, CITATION.cff and the changelog."""
    source = (ROOT / "prompt_jax" / "__init__.py").read_text("utf-8")
    declared = re.search(r'^__version__ = "(.+)"$', source, re.M)
    version = project["version"]
    if declared is None or declared.group(1) != version:
        yield f"prompt_jax/__init__.py: __version__ is not pyproject.toml's {version}"
    if citation()["version"] != version:
        yield f"CITATION.cff: the version is not pyproject.toml's {version}"
    if f"## {version}" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        yield f"CHANGELOG.md: no heading for version {version}"


def citation() -> dict[str, Any]:
    """CITATION.cff as data."""
    return yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def check_citation(project: dict[str, Any]) -> Iterator[str]:
    """The papers of the methods, each complete."""
    cff = citation()
    if cff["cff-version"] != "1.2.0" or cff["license"] != project["license"]:
        yield "CITATION.cff: cff-version must be 1.2.0 and the license pyproject.toml's"
    if not cff["authors"]:
        yield "CITATION.cff: no authors"
    papers = cff["references"]
    if not len({paper["title"] for paper in papers}) == len(papers) >= 10:
        yield "CITATION.cff: a paper is named twice, or one of the methods' papers is missing"
    for paper in papers:
        named = all("family-names" in author for author in paper.get("authors", ()))
        if not paper.keys() >= {"type", "title", "authors", "year"} or not named:
            yield f"CITATION.cff: {paper.get('title')} lacks its type, title, authors or year"
        if not paper.keys() & {"doi", "url", "identifiers"}:
            yield f"CITATION.cff: {paper.get('title')} has no doi, url or identifiers"


def check_license() -> Iterator[str]:
    """The whole text of the licence."""
    text = (ROOT / "LICENSE").read_text("utf-8")
    for part in ("Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"):
        if part not in text:
            yield f"LICENSE: lacks '{part}'"


def pins(python: str) -> tuple[dict[str, str], list[str]]:
    """The version of every pinned package for a Python version, and problems of the pins."""
    versions: dict[str, str] = {}
    problems = []
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.url is not None or [s.operator for s in pin.specifier] != ["=="]:
            problems.append(f"constraints.txt: '{line}' is not of the form name==version")
            continue
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            if canonical(pin.name) in versions:
                problems.append(f"constraints.txt: {pin.name} is pinned twice for {python}")
            versions[canonical(pin.name)] = next(iter(pin.specifier)).version
    return versions, problems


def check_constraints(project: dict[str, Any]) -> Iterator[str]:
    """Exact pins, one per package and Python, inside pyproject.toml's ranges."""
    installed = [*project["dependencies"]]
    for extra in EXTRAS:
        installed += project["optional-dependencies"][extra]
    for python in PYTHONS:
        versions, problems = pins(python)
        yield from problems
        for text in installed:
            needed = Requirement(text)
            version = versions.get(canonical(needed.name))
            if version is None or not needed.specifier.contains(version):
                yield f"constraints.txt: {version} does not meet '{text}' for Python {python}"


def check_dependencies(project: dict[str, Any]) -> Iterator[str]:
    """Nothing that would replace the user's jax, and no second framework."""
    for text in project["dependencies"]:
        needed = Requirement(text)
        if needed.extras or canonical(needed.name) in ("torch", "transformers", "tensorflow"):
            yield f"pyproject.toml: '{text}' must be an extra"


def check_targets() -> Iterator[str]:
    """The documentation names only make targets that exist."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for name in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        text = (ROOT / name).read_text("utf-8")
        for used in set(re.findall(r"(?:`|^ {4,})make ([a-z-]+)", text, re.M)) - targets:
            yield f"{name}: there is no 'make {used}'"
    if not {"quickstart", "test"} <= targets:
        yield "Makefile: the README requires the targets quickstart and test"


def problems() -> Iterable[str]:
    """All problems of the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    yield from check_tree()
    yield from check_versions(project)
    yield from check_citation(project)
    yield from check_license()
    yield from check_constraints(project)
    yield from check_dependencies(project)
    yield from check_targets()


if __name__ == "__main__":
    listed = list(problems())
    print(*listed, sep="\n", end="\n" if listed else "")
    sys.exit(bool(listed))
