"""Calls of Slack's API, and what its answers mean: it is away, or it refuses a channel, a thread or one message."""

import logging
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from windsock.redact import redact_line
from windsock.settings import Settings

# At debug level Slack's client logs whole requests.
_quiet = logging.getLogger(f"{__name__}.client")
_quiet.setLevel(logging.CRITICAL)

_CALL_S = 3
"""Longest that one call to Slack may take."""
_PATIENCE_S = 1
"""Longest ``Retry-After`` that is waited for; slack_sdk adds up to a second to it."""
_REST = timedelta(seconds=30)
"""After a refusal, before anybody asks Slack again."""
_LONGEST_REST = timedelta(hours=1)
_AWAY = frozenset(
    {
        *("ratelimited", "rate_limited", "message_limit_exceeded", "service_unavailable", "request_timeout"),
        *("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope"),
        *("not_allowed_token_type", "org_login_required", "two_factor_setup_required", "accesslimited"),
        *("team_added_to_org", "enterprise_is_restricted"),
        *("unknown_method", "method_deprecated", "deprecated_endpoint"),
    }
)
"""Errors of Slack itself, of the token and of the workspace: whatever is sent has them."""
_UNSURE = frozenset({"internal_error", "fatal_error"})
"""Slack is away, or this one message is more than it can bear."""
_OF_CHANNEL = frozenset(
    {
        *("channel_not_found", "not_in_channel", "is_archived", "no_permission", "external_channel_migrating"),
        "posting_to_general_channel_denied",
    }
)
"""Errors that another channel would not have; so is what begins with ``restricted_action``."""
_OF_HEAD = frozenset({"message_not_found", "thread_not_found"})
_ERROR = re.compile(r"[a-z0-9_]+")
"""What Slack calls its errors; anything else is a network's or a proxy's."""


class Refused(Exception):
    """Slack did not take something; what none of the following says is the trouble of this one message.

    Attributes:
        away: It takes nothing for now.
        ends_turn: It may be so.
        of_channel: It takes nothing in this channel.
        of_head: The head of the thread is not there.
        rest: How long to leave it alone.
    """

    def __init__(self, why: str, error: str = "", rest: timedelta = _REST, status: int = 200) -> None:
        super().__init__(why)
        slow = status == 429 or (status >= 500 and error not in _UNSURE)
        self.away = slow or error in _AWAY or _ERROR.fullmatch(error) is None
        self.ends_turn = self.away or error in _UNSURE
        self.of_channel = error in _OF_CHANNEL or error.startswith("restricted_action")
        self.of_head = error in _OF_HEAD
        self.rest = rest


Call = Callable[..., Mapping[str, Any]]
"""Calls a method of Slack's with its arguments, and returns the answer; raises Refused."""


def caller(settings: Settings) -> Call:
    """Return what calls Slack. One call, and one repeat for a short rate limit."""
    # It takes a while to load, and few installations have a token.
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError
    from slack_sdk.http_retry import HttpResponse, RateLimitErrorRetryHandler

    class ShortRateLimit(RateLimitErrorRetryHandler):
        """Waits for a rate limit only if it ends within the time that there is."""

        def _can_retry(self, *, response: HttpResponse | None = None, **asked: Any) -> bool:
            headers = {name.lower(): values for name, values in response.headers.items()} if response else {}
            waits = headers.get("retry-after", ["inf"])
            return super()._can_retry(response=response, **asked) and float(waits[0]) <= _PATIENCE_S

    def call(method: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            client = WebClient(
                settings.slack_token,
                base_url=settings.slack_api_url.rstrip("/") + "/",
                timeout=_CALL_S,
                logger=_quiet,
                retry_handlers=[ShortRateLimit()],
            )
            answer = client.api_call(method, json=arguments)
            return {name: answer.get(name) for name in ("ts", "channel")}
        except SlackApiError as err:
            answer = err.response
            error = str(answer.get("error", "")) if isinstance(answer.data, dict) else ""
            whole = redact_line(f"{type(err).__name__}: {err}", [settings.slack_token])
            why = error if _ERROR.fullmatch(error) else whole
            raise Refused(why, error, _rest_of(answer.headers), answer.status_code) from None
        except Exception as err:
            raise Refused(redact_line(f"{type(err).__name__}: {err}", [settings.slack_token])) from None

    return call


def _rest_of(headers: Mapping[str, Any]) -> timedelta:
    """Return how long Slack wants to be left alone."""
    found = {name.lower(): value for name, value in headers.items()}.get("retry-after")
    text = str(found[0] if isinstance(found, list) else found)
    return min(timedelta(seconds=int(text)), _LONGEST_REST) if text.isdecimal() else _REST
