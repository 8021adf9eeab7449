"""``windsock demo``: the whole loop on one machine, then a summary worth reading."""

import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console

from windsock.settings import Settings
from windsock_local.stack.home import ADMIN_USER, Home

_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Your own transactions (Parquet or CSV, the fraud model's columns) instead of simulated ones.",
)
@click.option("--from", "first", type=_DAY, help="First day of --data to use. [default: its first]")
@click.option("--to", "last", type=_DAY, help="Last day of --data to use. [default: its last]")
@click.option("--stop", is_flag=True, help="Stop the stack at the end. [default: leave it running to look around]")
def demo(data: Path | None, first: datetime | None, last: datetime | None, stop: bool) -> None:
    """Run the whole loop: backfill, train, promote, go on, drift, retrain, promote.

    It has a home of its own, var/demo, and starts from nothing each time; what you keep in var/ is not touched.
    """
    from windsock.store import Store, to_json
    from windsock.validate import docs
    from windsock_local.demo import plan, report
    from windsock_local.demo.loop import DemoLoop, Display
    from windsock_local.stack import lifecycle
    from windsock_local.stack.airflow_api import AirflowApi

    if data is None and (first or last):
        raise click.UsageError("--from and --to choose days of --data FILE; simulated days are fixed.")
    base = Settings.from_env()
    home = base.home / "demo"
    settings = Settings.from_env(
        {**os.environ, "WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models"), "WINDSOCK_STORE": ""}
    )
    # Ended by a signal, it takes its stack with it, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    display = Display()
    with display.bars, display.phase("stack", "Start PostgreSQL, MLflow, Airflow"):
        lifecycle.stop_stack(settings)
        shutil.rmtree(home, ignore_errors=True)
        calendar = (
            plan.simulated_plan(home)
            if data is None
            else plan.file_plan(home, data, first.date() if first else None, last.date() if last else None)
        )
        stack = lifecycle.wait_until_ready(settings, lifecycle.start_detached(settings))
    settings = replace(settings, mlflow_uri=stack.mlflow_url, ui_url=stack.airflow_url)
    display.say(f"Airflow is at {stack.airflow_url}, MLflow at {stack.mlflow_url}.")
    try:
        with display.bars, AirflowApi.of_stack(settings) as api:
            DemoLoop(settings, calendar, api, display).run()
            with display.phase("docs", "Build the Data Docs"):
                docs.build(settings)
        output = base.home / "demo.json"
        result = report.collect_facts(settings, calendar)
        result["seconds"] = {**display.seconds, "total": round(time.monotonic() - display.started, 1)}
        result["links"] = _links(settings, output, stopped=stop)
        Store(str(base.home)).write_bytes(to_json(result), output.name)
        report.print_report(Console(soft_wrap=False), result)
    except (KeyboardInterrupt, SystemExit):
        stop = True
        raise
    finally:
        if stop:
            lifecycle.stop_stack(settings)


def _links(settings: Settings, output: Path, *, stopped: bool) -> dict[str, str]:
    files = {
        "Data Docs": str(settings.home / "great_expectations/uncommitted/data_docs/local_site/index.html"),
        "drift reports": str(Path(settings.store) / "reports"),
        "gate reports": str(Path(settings.store) / "runs"),
        "this summary as JSON": str(output),
    }
    if stopped:
        return {**files, "to look around": f"windsock up --home {settings.home}"}
    files["Data Docs"] = f"{settings.ui_url}/windsock/pages/data-docs/index.html"
    return {
        "Airflow": settings.ui_url,
        "  log in as": f"{ADMIN_USER}, password in {Home.of(settings).secrets / 'admin_password'}",
        "MLflow": settings.mlflow_uri,
        **files,
        "to stop it": f"windsock down --home {settings.home}",
    }
