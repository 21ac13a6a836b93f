"""Archives of runs: packed, read like directories, and refused where they are something else."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.errors import DataError
from prompt_jax.rundir import archive
from prompt_jax.rundir.findings import find
from rundir.synthetic import write_cells


@pytest.fixture
def run(tmp_path: Path) -> Path:
    scores = {("a", "t"): np.ones((2, 10)), ("b", "t"): np.zeros((2, 10))}
    path = write_cells(tmp_path / "run", scores)
    config = json.loads((path / "config.json").read_text("utf-8"))
    config |= {"name": "packed", "out": "/somewhere"}
    config["data"] |= {"root": "/data", "cache": "/cache"}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_archive_holds_results_and_nothing_of_the_machine(run, tmp_path):
    packed = archive.pack(run, tmp_path / "kept")
    assert packed == tmp_path / "kept" / "packed.tar.gz"
    assert archive.pack(run, tmp_path / "again").read_bytes() == packed.read_bytes()
    kept = archive.unpack(packed, tmp_path / "one")
    assert not any(word in (kept / "config.json").read_text() for word in ("somewhere", "/data"))
    assert {file.name for file in kept.iterdir()} == set(archive.FILES)
    (run / "oracle.json").write_text("{}")
    archive.pack(run, tmp_path / "more")
    kept = archive.unpack(tmp_path / "more" / "packed.tar.gz", tmp_path / "two")
    assert {file.name for file in kept.iterdir()} == {*archive.FILES, "oracle.json"}


def test_archive_gives_the_findings_of_its_run(run, tmp_path):
    packed = archive.pack(run, tmp_path)
    one, other = (find(made) for made in archive.read([run, packed]))
    assert one.rows == other.rows
    assert one.contrasts == other.contrasts
    assert other.run.path == packed


def test_unfinished_run_is_refused(run, tmp_path):
    (run / "items.npz").unlink()
    with pytest.raises(DataError, match=r"has no items\.npz: is the run finished"):
        archive.pack(run, tmp_path)


def test_damaged_archive_is_refused(run, tmp_path):
    content = archive.pack(run, tmp_path).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "no.tar.gz").write_bytes(b"no")
    for name in ("cut.tar.gz", "no.tar.gz", "absent.tar.gz"):
        with pytest.raises(DataError, match="no archive of a run, or is damaged"):
            archive.read([tmp_path / name])


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "link"])
def test_member_outside_the_archive_is_refused(run, tmp_path, name):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        for file in archive.FILES:
            made.add(run / file, file)
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        else:
            member.size = 2
        made.addfile(member, io.BytesIO(b"no"))
    with pytest.raises(DataError, match=r"lies outside the archive|is no file of a run"):
        archive.read([path])
    assert not (tmp_path / "evil").exists()


def test_name_of_an_experiment_stays_in_the_folder(run, tmp_path):
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps(config | {"name": "../../up"}))
    assert archive.pack(run, tmp_path / "kept") == tmp_path / "kept" / "up.tar.gz"
