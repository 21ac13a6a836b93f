"""`prompt-jax report` on a real run directory."""

from __future__ import annotations

from tests.cli.conftest import Invoke, Ran, World


def test_the_page_of_a_real_run(invoke: Invoke, world: World, ran: Ran) -> None:
    page = world.folder / "report.html"
    first = page.read_bytes()  # the run made it
    assert str(page) in ran.result.out
    page.unlink()
    result = invoke("report", world.folder)
    assert (result.code, result.out, result.err) == (0, f"{page}\n", "")
    assert page.read_bytes() == first
    text = first.decode()
    assert "Something is missing" not in text
    for word in ("prompt_tuning", "spot", "Learning curves", f"{world.folder}/prompts/"):
        assert word in text
    assert text.count("<svg") > 10


def test_what_is_no_run_directory(invoke: Invoke, world: World) -> None:
    result = invoke("report", world.root / "cache")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("prompt-jax: ")
    assert "is no run directory" in result.err
    assert result.err.count("\n") == 1
