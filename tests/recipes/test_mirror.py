"""Run directories at a URL: what travels when, and what another machine makes of it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from prompt_jax.errors import ConfigError, PromptJaxError, StoppedError, TrainingError
from prompt_jax.paths import user_cache
from prompt_jax.recipes import experiment, outputs, run
from prompt_jax.recipes.mirror import Mirror
from prompt_jax.rundir.paths import OWNER, staging
from prompt_jax.training import loop
from prompt_jax.training.checkpoints import Checkpoints

from .test_unfinished import Kill, killed_at, written

URL = "memory://bucket/run"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with an empty cache, and an empty store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return tmp_path


def another_machine():
    """Nothing of this one is left."""
    shutil.rmtree(user_cache())


def content(url: str) -> dict[str, bytes]:
    """Every file at a URL, by its name there."""
    system, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root + "/"): system.cat_file(path) for path in system.find(root)}


def local(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its name there."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()
    }


def opened(url: str = URL, **files: str) -> Mirror:
    """A mirror that was fetched, with files in its folder; `__` stands for a slash."""
    mirror = Mirror(url)
    mirror.fetch()
    write(mirror, "config.json", "{}")
    for name, text in files.items():
        write(mirror, f"{name.replace('__', '/')}.txt", text)
    return mirror


def write(mirror: Mirror, name: str, text: str) -> None:
    path = mirror.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# What is where


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_fetch_returns_what_was_pushed(machine, kind):
    url = URL if kind == "memory" else (machine / "mounted" / "run").as_uri()
    mirror = opened(url, a="1", trained__b="2", checkpoints__c__d="3")
    mirror.push()
    before = local(mirror.folder)
    assert set(before) == {OWNER, "config.json", "a.txt", "trained/b.txt", "checkpoints/c/d.txt"}
    assert content(url) == before
    another_machine()
    again = Mirror(url)
    again.fetch()
    after = local(again.folder)
    assert after.pop(OWNER) != before.pop(OWNER)
    assert after == before


def test_staging_folder_is_one_per_url():
    assert staging(URL) == staging(URL + "/") != staging(URL + "2")
    assert staging(URL).is_relative_to(user_cache())


def test_push_sends_only_changed_files(monkeypatch):
    mirror = opened(a="1", trained__b="2")
    sent = []
    for name, place in (("pipe_file", 0), ("put_file", 1)):
        method = getattr(MemoryFileSystem, name)

        def note(self, *args, method=method, place=place, **options):
            sent.append(args[place].removeprefix("/bucket/run/"))
            return method(self, *args, **options)

        monkeypatch.setattr(MemoryFileSystem, name, note)
    mirror.push()
    assert sent == [OWNER, "config.json", "a.txt", "trained/b.txt"]
    sent.clear()
    mirror.push()
    assert sent == []
    write(mirror, "a.txt", "12")
    write(mirror, ".a.txt.0123.tmp", "a draft")
    write(mirror, "checkpoints/p/00000001.orbax-checkpoint-tmp/x", "a draft")
    (mirror.folder / "link").symlink_to(mirror.folder.parent)
    mirror.push()
    assert sent == ["a.txt"]


def test_push_deletes_removed_checkpoints_only():
    mirror = opened(a="1", checkpoints__p__1__x="1", checkpoints__p__2__x="2")
    fsspec.filesystem("memory").pipe_file("/bucket/run/notes.md", b"mine")
    mirror.push()
    shutil.rmtree(mirror.folder / "checkpoints" / "p" / "1")
    (mirror.folder / "a.txt").unlink()
    mirror.push()
    names = {OWNER, "config.json", "a.txt", "notes.md"}
    assert set(content(URL)) == names | {"checkpoints/p/2/x.txt"}
    # A later start removes what an earlier process could not.
    shutil.rmtree(mirror.folder / "checkpoints")
    again = Mirror(URL)
    again.fetch()
    again.push()
    assert set(content(URL)) == names


# Whose it is


def test_fetch_keeps_the_folder_that_wrote_last():
    """What was not sent any more is newer than what is there."""
    opened(a="1").push()
    write(Mirror(URL), "a.txt", "later")
    mirror = Mirror(URL)
    mirror.fetch()
    assert (mirror.folder / "a.txt").read_text() == "later"
    mirror.push()
    assert content(URL)["a.txt"] == b"later"


def test_push_over_another_writer_is_refused(machine, monkeypatch):
    first = opened(a="1", b="only here")
    first.push()
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "other"))
    second = Mirror(URL)
    second.fetch()
    (second.folder / "b.txt").unlink()
    fsspec.filesystem("memory").rm_file("/bucket/run/b.txt")
    write(second, "a.txt", "2")
    second.push()
    with pytest.raises(TrainingError, match="memory://bucket/run was written by another process"):
        first.push()
    assert (first.folder / "a.txt").read_text() == "1"
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "cache"))
    again = Mirror(URL)
    again.fetch()
    assert again.folder == first.folder
    assert (again.folder / "a.txt").read_text() == "2"
    assert not (again.folder / "b.txt").exists()


def test_push_fills_an_emptied_url_again():
    mirror = opened(a="1")
    mirror.push()
    before = content(URL)
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
    mirror.push()
    assert content(URL) == before
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
    again = Mirror(URL)
    again.fetch()
    again.push()
    assert content(URL) == before


def test_fetch_replaces_a_half_fetched_folder(monkeypatch):
    """A start that was killed while it fetched is no state to resume from."""
    opened(a="1", b="2").push()
    another_machine()
    with monkeypatch.context() as patch:
        killed_at(patch, MemoryFileSystem, "get_file", 2)
        with pytest.raises(Kill):
            Mirror(URL).fetch()
    assert not (staging(URL) / "b.txt").exists()
    mirror = Mirror(URL)
    mirror.fetch()
    assert (mirror.folder / "b.txt").read_text() == "2"


# Uploads that are cut off


def cut_off(monkeypatch, mirror, calls):
    """Whether a push is killed before this write or removal."""
    done = []
    with monkeypatch.context() as patch:
        for name in ("pipe_file", "put_file", "rm_file"):
            method = getattr(MemoryFileSystem, name)

            def cut(self, *args, method=method, **options):
                done.append(args)
                if len(done) == calls:
                    raise Kill
                return method(self, *args, **options)

            patch.setattr(MemoryFileSystem, name, cut)
        try:
            mirror.push()
        except Kill:
            return True
    return False


@pytest.mark.slow
def test_push_killed_at_any_write_leaves_an_intact_checkpoint(monkeypatch):
    """An upload that ends at any of its writes or removals leaves a state that is whole."""
    state = {"x": np.arange(6, dtype=np.float32)}
    steps = []
    for calls in range(1, 100):
        url = f"memory://bucket/cut{calls}"
        mirror = opened(url, log="12")
        kept = Checkpoints(mirror.folder / "checkpoints" / "p", keep=1)
        write(mirror, "checkpoints/p/members.json", "[]")
        kept.save(1, state, {"position": 1}, {}, wait=True)
        mirror.push()
        kept.save(2, state, {"position": 3}, {}, wait=True)
        kept.close()
        write(mirror, "log.txt", "1234")
        cut = cut_off(monkeypatch, mirror, calls)
        another_machine()
        again = Mirror(url)
        again.fetch()
        said = []
        fresh = Checkpoints(again.folder / "checkpoints" / "p", say=said.append)
        saved = fresh.restore(state, {})
        # What has no manifest yet does not look whole.
        assert all("manifest.json is missing" in line for line in said)
        assert len((again.folder / "log.txt").read_text()) >= saved.host["position"]
        steps.append(saved.step)
        if not cut:
            break
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}
    assert len(steps) > 8


# What is refused


@pytest.mark.parametrize(
    "name", ["../stolen", "a/../../stolen", "/etc/stolen", "a//b", "a\\..\\..\\b", "c:stolen"]
)
def test_fetch_refuses_names_outside_the_folder(machine, monkeypatch, name):
    opened(a="1").push()
    another_machine()
    inside = ["/bucket/run/config.json", f"/bucket/run/{name}"]
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *args, **options: inside)
    with pytest.raises(ConfigError, match="which leaves the run directory"):
        Mirror(URL).fetch()
    assert not list(machine.rglob("stolen"))
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *args, **options: ["/elsewhere/x"])
    with pytest.raises(ConfigError, match="which leaves the run directory"):
        Mirror(URL).fetch()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_fetch_refuses_links_to_outside(machine, kind):
    (machine / "secret").mkdir()
    (machine / "secret" / "key.txt").write_text("secret")
    url = (machine / "mounted").as_uri()
    opened(url).push()
    target = machine / "secret"
    (machine / "mounted" / "x").symlink_to(target if kind == "folder" else target / "key.txt")
    another_machine()
    with pytest.raises(ConfigError, match="which leaves the run directory"):
        Mirror(url).fetch()


def test_fetch_of_a_url_that_is_no_run_directory_is_refused():
    fsspec.filesystem("memory").pipe_file("/bucket/run/thesis.tex", b"x")
    with pytest.raises(ConfigError, match="is not empty and is no run directory"):
        Mirror(URL).fetch()


def test_fetch_of_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match=r"out=gss://b/run cannot be used: .*gss"):
        Mirror("gss://b/run").fetch()
    fsspec.register_implementation(
        "vault", "no_such_package.Vault", clobber=True, errtxt="Please install vaultfs"
    )
    with pytest.raises(ConfigError, match=r"Please install vaultfs\. Install the package"):
        Mirror("vault://b/run").fetch()


# Whole experiments


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """What is written into a local run directory: 3 steps with k = 4, then 4 with all rows."""
    config = small(world, tmp_path_factory.mktemp("whole"), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "write_page", lambda *args: None)
        execute(config, world)
    return comparable(Path(config.out))


@pytest.fixture
def config(world, machine, monkeypatch):
    monkeypatch.setattr(outputs, "write_page", lambda *args: None)
    return small(world, machine, URL)


def small(world, folder, out):
    made = world.experiment(
        folder,
        sources=(),
        targets=(world.tasks["one"],),
        methods=("prompt_tuning",),
        shots=(4, 0),
        seeds=1,
        checkpoint_seconds=1e-9,
    )
    if out is None:
        return made
    return dataclasses.replace(made, out=out, data=dataclasses.replace(made.data, cache=None))


def execute(config, world, say=lambda line: None):
    return run(config, world.lm, show=False, say=say)


def comparable(folder):
    """A run directory but for times; what only a run at a URL has is left out."""
    found = written(folder)
    found["names"] = sorted(set(found["names"]) - {OWNER, "trained"})
    found["prompts"] = {k: v for k, v in found["prompts"].items() if not k.startswith("trained/")}
    return found


def there(machine):
    """What lies at the URL, as a run directory."""
    folder = machine / "downloaded"
    shutil.rmtree(folder, ignore_errors=True)
    for name, raw in content(URL).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return comparable(folder)


def counted(monkeypatch):
    """Steps that are taken from now on."""
    steps, original = [], loop.Population.step

    def count(self, number):
        steps.append(number)
        return original(self, number)

    monkeypatch.setattr(loop.Population, "step", count)
    return steps


def broken_off(config, world, monkeypatch, at=6):
    """Killed before a step; by default in the second stage, which has taken two."""
    with monkeypatch.context() as patch:
        killed_at(patch, loop.Population, "step", at)
        with pytest.raises(Kill):
            execute(config, world)


@pytest.mark.slow
def test_run_at_a_url_equals_a_local_run(config, world, whole, machine):
    said: list[str] = []
    report = execute(config, world, said.append)
    assert report.folder == staging(URL)
    assert comparable(report.folder) == whole == there(machine)
    assert not [name for name in content(URL) if name.startswith("checkpoints/")]
    assert said[-1] == f"  {URL} holds all of it, and this machine {report.folder}"
    assert not list(machine.glob("*run*"))


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 4, 6])
def test_run_at_a_url_resumes_on_another_machine(config, world, whole, machine, monkeypatch, at):
    broken_off(config, world, monkeypatch, at)
    another_machine()
    steps = counted(monkeypatch)
    report = execute(config, world)
    assert len(steps) == 7 - (at - 1)
    assert comparable(report.folder) == whole == there(machine)


@pytest.mark.slow
def test_finished_run_at_a_url_is_not_trained_again(config, world, whole, machine, monkeypatch):
    execute(config, world)
    another_machine()
    steps = counted(monkeypatch)
    report = execute(config, world)
    assert steps == []
    assert all(found == runs for _, found, runs in report.reused)
    assert comparable(report.folder) == whole == there(machine)


@pytest.mark.slow
def test_sigterm_uploads_the_last_step(config, world, whole, machine, monkeypatch):
    """SIGTERM: the last step is there before the process ends."""
    original, steps = loop.Population.step, []

    def stop(self, number):
        steps.append(number)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Population, "step", stop)
        with pytest.raises(StoppedError):
            execute(dataclasses.replace(config, checkpoint_seconds=600.0), world)
    another_machine()
    again = counted(monkeypatch)
    execute(config, world)
    assert (len(steps), len(again)) == (5, 2)
    assert there(machine) == whole


@pytest.mark.slow
def test_truncated_upload_falls_back_to_the_previous_checkpoint(
    config, world, whole, machine, monkeypatch, caplog
):
    broken_off(config, world, monkeypatch)
    newest = max(n for n in content(URL) if n.startswith("checkpoints/") and "/arrays/" in n)
    step = newest.split("/")[2]
    biggest = max(
        (n for n in content(URL) if f"/{step}/arrays/" in n), key=lambda n: len(content(URL)[n])
    )
    fsspec.filesystem("memory").pipe_file(f"/bucket/run/{biggest}", content(URL)[biggest][:-7])
    another_machine()
    steps = counted(monkeypatch)
    execute(config, world)
    assert len(steps) == 7 - 5 + 1
    assert "is damaged" in caplog.text
    assert "Resuming from the previous checkpoint" in caplog.text
    assert there(machine) == whole


def test_url_that_fails_at_the_start_trains_nothing(config, world, monkeypatch):
    """Before anything is trained."""
    steps = counted(monkeypatch)
    with monkeypatch.context() as patch:

        def refuse(self, *args, **options):
            raise PermissionError(13, "Permission denied")

        patch.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.raises(TrainingError, match=rf"^{URL} cannot be written \(Permission denied"):
            execute(config, world)
        patch.setattr(MemoryFileSystem, "cat_file", refuse)
        with pytest.raises(TrainingError, match=rf"^{URL} cannot be read \(Permission denied"):
            execute(config, world)
    assert steps == []


@pytest.mark.slow
def test_url_that_fails_during_training_resumes_from_the_local_folder(
    config, world, whole, machine, monkeypatch
):
    """One message that says where everything is; the same command resumes from there."""
    steps = counted(monkeypatch)
    with monkeypatch.context() as patch:
        method = MemoryFileSystem.put_file

        def fail(self, *args, **options):
            if len(steps) > 4:
                raise ConnectionError("the line is dead")
            return method(self, *args, **options)

        patch.setattr(MemoryFileSystem, "put_file", fail)
        with pytest.raises(TrainingError, match="the line is dead") as caught:
            execute(config, world)
    assert len(str(caught.value).splitlines()) == 1
    assert str(staging(URL)) in str(caught.value)
    assert len(steps) < 7
    execute(config, world)
    assert 7 <= len(steps) <= 8  # what was not sent was here all the same
    assert there(machine) == whole


@pytest.mark.slow
def test_run_of_another_config_at_the_url_is_refused(config, world):
    execute(config, world)
    another_machine()
    with pytest.raises(ConfigError, match="holds a run of another config"):
        execute(
            dataclasses.replace(config, prompt=dataclasses.replace(config.prompt, tokens=2)), world
        )


@pytest.mark.parametrize("cache", ["", "own"])
def test_own_cache_is_not_copied_to_the_url(config, world, machine, pretender, cache):
    place = cache and str(machine / cache)
    changed = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=place))
    execute(changed, world)
    assert not [name for name in content(URL) if name.startswith("trained/")]
    assert bool(cache) == bool(list(machine.glob("own/runs/*.safetensors")))


@pytest.mark.parametrize("key", ["root", "cache"])
def test_data_root_and_cache_at_a_url_are_refused(world, machine, key):
    with pytest.raises(PromptJaxError, match=rf"data.{key} must be a directory of this machine"):
        dataclasses.replace(world.experiment(machine).data, **{key: URL})


def test_second_process_at_one_url_is_refused(world, tmp_path):
    """Both would work in the one local folder of the URL; the first has not written there yet."""
    config = world.experiment(tmp_path, out=URL)
    with experiment.opened(config, world.lm, show=False) as (folder, _):
        before = content(URL)
        with pytest.raises(ConfigError, match=rf"{URL} is being written by process"):
            run(config, world.lm, show=False)
        assert content(URL) == before
        assert folder.is_dir()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
