"""Sending an alert: the log first, then Slack; no failure of either reaches the caller."""

import logging

from windsock.alerts.message import Alert, as_line, as_slack
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger("windsock.alerts")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def send(settings: Settings, alert: Alert, spec: ModelSpec | None = None) -> bool:
    """Report something: always as one line in the log, and to Slack if that is configured (a model's channel first).

    Takes at most five seconds, whatever Slack or the network do, and never raises.

    Returns:
        Whether Slack took the message.
    """
    try:
        secrets = [settings.slack_token]
        log.log(_LEVELS.get(alert.level, logging.ERROR), "%s", as_line(alert, secrets))
        channel = (spec.alerts.slack_channel if spec is not None else None) or settings.slack_channel
        if not settings.slack_token.strip() or not channel:
            if settings.slack_token.strip():
                log.warning("Slack has a token but no channel: set WINDSOCK_SLACK_CHANNEL or alerts.slack_channel")
            return False
        from windsock.alerts.slack import post  # slack_sdk takes a while to load, and few installations have a token

        problem = post(settings, channel, as_slack(alert, secrets))
        if problem is not None:
            log.warning("Slack did not get this alert: %s", problem)
        return problem is None
    except Exception as err:
        # Only the type: its text may hold anything, and this is the last line of defence.
        log.error("An alert could not be sent: %s", type(err).__name__)
        return False
