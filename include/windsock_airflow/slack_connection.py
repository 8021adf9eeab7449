"""Slack's token from an Airflow connection, read by the scheduler each time it sends: a new token needs no restart."""

from dataclasses import replace

from windsock.errors import SpecError
from windsock.settings import Settings


def with_token(settings: Settings) -> Settings:
    """Return the settings with the token of the connection that they name, if they have none of their own.

    Raises:
        SpecError: Airflow has no such connection, or it has no password.
    """
    if settings.slack_token or not settings.slack_conn_id:
        return settings
    from airflow.models.connection import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    named = f"WINDSOCK_SLACK_CONN_ID names the Airflow connection {settings.slack_conn_id!r}, which"
    try:
        connection = Connection.get_connection_from_secrets(settings.slack_conn_id)
    except AirflowNotFoundException:
        raise SpecError(
            f"{named} is not there: messages wait in the outbox. Make it in Airflow under Admin, Connections, of any "
            "type, with the bot token as its password."
        ) from None
    if not (token := (connection.password or "").strip()):
        raise SpecError(f"{named} has no password: messages wait in the outbox. The bot token belongs there.")
    return replace(settings, slack_token=token)
