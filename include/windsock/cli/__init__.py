"""The command line: ``windsock``, with each command's code loaded only when it runs."""

import importlib
import sys
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import click

from windsock import __version__, last_words
from windsock.errors import SpecError, WindsockError
from windsock.faults import fault_behind

COMMANDS = {
    "lint": ("windsock.cli.models:lint", "Check every model spec."),
    "plan": ("windsock.cli.plan:plan", "Say what an edit of a model means, before it is merged."),
    "models": ("windsock.cli.models:models", "List the models and their versions."),
    "alerts": ("windsock.cli.alerts:alerts", "List what people were told, and whether it is over."),
    "step": ("windsock.cli.step:step", "Run one pipeline step by itself."),
    "apply": ("windsock.cli.step:apply", "Compute ahead what the next training lacks; register with Feast."),
    "canary": ("windsock.cli.models:canary", "Check that this version computes what earlier ones did."),
    "materialize": ("windsock.cli.step:materialize", "Load features into the online store."),
    "reproduce": ("windsock.cli.models:reproduce", "Train a registered version again and compare."),
    "explain": ("windsock.cli.governor:explain", "Say why the governor decided about a day as it did."),
    "policy": ("windsock.cli.governor:policy", "Decide recorded nights again, by other settings."),
    "void": ("windsock.cli.corrections:void", "Take a day's record out again."),
    "correct-promotion": (
        "windsock.cli.corrections:correct_promotion",
        "Put the champion in force from an earlier day.",
    ),
    "check-trainer": ("windsock.cli.trainer:check_trainer", "Try a trainer of your own on made-up rows."),
}
"""The product's own commands: name to where its click command lives, and its line in the help."""


@cache
def commands() -> dict[str, tuple[str, str]]:
    """Return every command that is installed: first those of other packages (entry points), then the product's own."""
    found: dict[str, tuple[str, str]] = {}
    for entry in entry_points(group="windsock.commands"):
        found |= entry.load()
    return {**found, **COMMANDS}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a newcomer's day."""
        return list(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; where there is none, say which is nearest."""
        if cmd_name not in commands():
            raise click.UsageError(str(SpecError.unknown("command", cmd_name, commands())), ctx=ctx)
        module, _, name = commands()[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a usage error that does not know of which command it is gets told."""
        try:
            return super().invoke(ctx)
        except click.UsageError as err:
            if err.ctx is None and (name := ctx.invoked_subcommand) is not None:
                err.ctx = click.Context(self.get_command(ctx, name) or self, info_name=name, parent=ctx)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in commands().items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="windsock")
def cli() -> None:
    """Windsock: data to promoted model to drift to retrained model, on Airflow."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; our own errors, and usage errors of any command, become one message and an exit code."""
    try:
        result = cli.main(args=argv, prog_name="windsock", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        return SpecError.exit_code
    except click.UsageError as err:
        return _fail(f"UsageError: {_with_usage(err)}", SpecError.exit_code)
    except WindsockError as err:
        return _fail(f"{type(err).__name__}: {err}", err.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    except Exception as err:
        if (fault := fault_behind(err)) is None:
            raise
        return _fail(f"{type(fault).__name__}: {fault}", fault.exit_code)
    return result if isinstance(result, int) else 0


def _with_usage(err: click.UsageError) -> str:
    """Say what is wrong with a command line, and how the command is used."""
    fault = " ".join(err.format_message().split())
    end = "" if fault.endswith((".", "?", ")")) else "."
    ctx = err.ctx or click.Context(cli, info_name="windsock")
    usage = " ".join(ctx.get_usage().split())
    return f"{fault}{end} {usage}, where '{ctx.command_path} --help' lists the options."


def _fail(message: str, exit_code: int) -> int:
    click.secho(message, fg="red", err=True, color=None if sys.stderr.isatty() else False)
    last_words.leave(message)
    return exit_code
