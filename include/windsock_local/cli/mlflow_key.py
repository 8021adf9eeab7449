"""``windsock mlflow-key``: a key to MLflow for a program of one's own, a notebook for instance."""

import click

from windsock.errors import UpstreamUnavailable
from windsock.mlflow_keys import VARIABLE, Caller, Kind, sign
from windsock.settings import Settings
from windsock_local.cli.stack import home_option
from windsock_local.stack.home import MLFLOW_SECRET, Home, signing_secret


@click.command()
@home_option
@click.option("--write", is_flag=True, help="The key may also write. [default: read]")
@click.option("--hours", type=click.IntRange(1, 24 * 31), default=8, show_default=True, help="How long it holds.")
def mlflow_key(settings: Settings, write: bool, hours: int) -> None:
    """Print a key to this installation's MLflow, which MLflow's client takes from MLFLOW_TRACKING_TOKEN.

    It is as good as a password: keep it out of files and logs.
    """
    if not (secret := signing_secret(settings)):
        file = Home.of(settings).secrets / MLFLOW_SECRET
        advice = "Ask" if settings.elsewhere else "Start the stack with `windsock up`, or ask"
        raise UpstreamUnavailable(
            f"There is no secret to sign a key with: no WINDSOCK_MLFLOW_SECRET, and no {file}. {advice} whoever runs "
            f"MLflow for a key ({VARIABLE})."
        )
    click.echo(sign(secret, Kind.KEY, Caller("windsock mlflow-key", "op" if write else "viewer"), hours * 3600))
