"""The command line: parses, calls, prints.

Everything a user can cause is one message on stderr that starts with `prompt-jax:`, and exit code
2. What a command computes stands in the floors below, which are imported inside the commands, so
that `prompt-jax --help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from prompt_jax import __version__, compile_cache
from prompt_jax.cli import (
    archive,
    contrasts,
    doctor,
    evaluate,
    federated,
    info,
    oracle,
    predict,
    prompts,
    report,
    run,
    select,
    table,
    tasks,
    tune,
    vectors,
)
from prompt_jax.errors import PromptJaxError, did_you_mean

USAGE, INTERRUPTED = 2, 130
# Typer brings its own copy of click since 0.24; before, this class is click's.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="prompt-jax",
    help="Multi-task soft prompt tuning over a frozen language model.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("tune")(tune.tune)
app.command("report")(report.report)
app.command("table")(table.table)
app.command("contrasts")(contrasts.contrasts)
app.command("archive")(archive.archive)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.add_typer(prompts.app, name="prompts")
app.command("vectors")(vectors.vectors)
app.command("oracle")(oracle.oracle)
app.command("federated")(federated.federated)
app.add_typer(select.app, name="select")
app.add_typer(tasks.app, name="tasks")
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prompt-jax {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    no_compile_cache: Annotated[
        bool,
        typer.Option(
            "--no-compile-cache", help="Neither read nor store compiled programs; see info."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif no_compile_cache:
        compile_cache.disable()
    else:
        compile_cache.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the entry point `prompt-jax`.

    Args:
      arguments: without the program's name; None: those of the process.

    Returns:
      0; 2 for what the user caused; 130 where the user interrupted. Bugs keep their traceback.
    """
    _quiet()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, prog_name="prompt-jax", standalone_mode=False)
    except PromptJaxError as error:
        if os.environ.get("PROMPT_JAX_TRACEBACK"):  # for authors of methods
            traceback.print_exception(error)
        code = _fail(str(error))
        return INTERRUPTED if getattr(error, "interrupted", False) else code
    except _UsageError as error:
        return _fail(_usage(error, given))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except MemoryError:
        return _fail("the memory of this machine is used up. Lower what was asked for.")
    except OSError as error:
        if error.filename is None:  # no file of the user's
            raise
        return _fail(f"{error.filename}: {error.strerror}.")
    except (RuntimeError, AssertionError, ValueError, ImportError) as error:
        from prompt_jax.cli.backend import why_jax_fails

        if (why := why_jax_fails(error)) is None:
            raise
        return _fail(why)
    if code == INTERRUPTED:  # typer's word for an interruption, too
        _fail("interrupted.")
    return code if isinstance(code, int) else 0


def _quiet() -> None:
    """Keeps libraries from talking over the output of the program."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.basicConfig(format="%(message)s")  # or absl, which orbax uses, adds a prefix
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character


def _fail(message: str) -> int:
    typer.echo(f"prompt-jax: {message}", err=True)
    return USAGE


def _usage(error: Any, given: Sequence[str]) -> str:
    """One sentence about a wrong command line, and where to read on."""
    command = getattr(getattr(error, "ctx", None), "command_path", "prompt-jax")
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        parameters = error.ctx.command.params
        known = [name for parameter in parameters for name in parameter.opts if name[:1] == "-"]
        takes_overrides = any(parameter.name == "overrides" for parameter in parameters)
        message = f"unknown option '{option}'."
        # Without the dashes, which make any two options alike.
        near = did_you_mean(option.lstrip("-"), [name.lstrip("-") for name in known])
        near = near.replace(" '", " '--")
        message += (_assignment(option, given, bool(near)) if takes_overrides else "") or near
    else:
        message = str(error.format_message()).strip()
        message = message[:1].lower() + message[1:]
        message += "" if message.endswith((".", "?", "!")) else "."
    return f"{message} See {command} --help."


def _assignment(option: str, given: Sequence[str], exact: bool) -> str:
    """What to write in place of an option that is a key of the config, as --model X.

    With `exact` the spelling has to be that of a key: the command has an option of about this name.
    """
    from prompt_jax.config import keys_meant

    found = keys_meant(option.lstrip("-"), run.config_keys(), exact)
    if not found:
        return ""
    place = next((i for i, word in enumerate(given) if word.partition("=")[0] == option), None)
    value = "..." if place is None else given[place].partition("=")[2]
    if place is not None and not value:
        after = given[place + 1 : place + 2]
        value = after[0] if after and not after[0].startswith("-") else "..."
    listed = [f"{key}={value}" for key in found]
    return f" Write {' or '.join([', '.join(listed[:-1]), listed[-1]] if listed[1:] else listed)}."
