"""Alerts: what they say, and telling people, in the log always, on Slack if it is configured, once for each cause.

:func:`report` keeps a message in the ``outbox`` and waits for nobody, so that no task is longer for it; the scheduler
sends it (:func:`send_waiting`). :func:`send` is for those who cannot leave it to the scheduler.

No failure of store or Slack reaches the caller. Text comes from exceptions and data, so nothing of it is trusted:
secrets are struck out, Slack's control characters are escaped, and length is bounded.
"""

import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from windsock.block_kit import link, mrkdwn
from windsock.days import utc_now
from windsock.outbox import Message, Outbox, Severity
from windsock.redact import redact, redact_line, redact_link
from windsock.settings import Settings
from windsock.slack import Delivery
from windsock.slack_calls import Refused, caller
from windsock.spec import ModelSpec
from windsock.spec.alerting import SEVERITIES, Kind
from windsock.store import Store

log = logging.getLogger(__name__)

_LIMIT_S = 4.5
"""Longest that Slack may hold up a caller of :func:`send`."""
_ROUND_S = 30.0
"""Longest that the scheduler sends without a pause."""
MAX_SENTENCE = 1500
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


@dataclass(frozen=True)
class Alert:
    """Something that a person should hear of: where, a sentence, and the ``url`` of the run in the Airflow UI."""

    dag_id: str | None
    sentence: str
    task_id: str | None = None
    day: str | None = None
    """Partition key; None: the run is not for a day."""
    url: str | None = None
    headline: str = "Task failed"
    cause: str = ""
    """Names the trouble, however often and by whomever it is seen; empty: it is one of its own."""
    kind: Kind = "failure"
    run_id: str | None = None
    thread: str = ""
    """Names what is going on: all that is said of it folds into one thread, until something closes it."""
    closes: bool = False
    links: tuple[tuple[str, str], ...] = ()
    """Words and address of each, beside the run's."""
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value of each figure that belongs to it."""

    def where(self) -> str:
        """Say which task of which DAG and day this is about, in one line."""
        parts = {"DAG": self.dag_id, "task": self.task_id, "day": self.day}
        return ", ".join(f"{kind} {name}" for kind, name in parts.items() if name)

    def as_line(self, secrets: Iterable[str] = ()) -> str:
        """Write the alert as one line for the log."""
        secrets = tuple(secrets)
        url = f" ({self.url})" if self.url else ""
        facts = "".join(f"; {name}: {value}" for name, value in self.facts)
        title = ": ".join(filter(None, (self.headline, self.where())))
        # First without secrets: of one that is cut nobody could tell that it is one.
        text = f"{title}: {_shortened(redact(self.sentence, secrets))}{facts}{url}"
        return redact(" ".join(text.split()), secrets)

    def as_slack(self, secrets: Iterable[str] = ()) -> str:
        """Write the alert as Slack text: DAG, task, day, sentence, link."""
        secrets = tuple(secrets)

        def shown(text: str, most: int) -> str:
            return mrkdwn(redact(text, secrets), most)

        where = self.where()
        lines = [f"*{shown(self.headline, 300)}*" + (where and f": {shown(where, 900)}")]
        lines.append(mrkdwn(_shortened(redact(self.sentence, secrets)), MAX_SENTENCE + 500))
        lines += [f"{shown(name, 100)}: {shown(value, 200)}" for name, value in self.facts]
        if self.url:
            lines.append(link("Open the run in Airflow", redact_link(self.url, secrets)))
        return "\n".join(lines)

    def as_message(self, settings: Settings, spec: ModelSpec | None) -> Message:
        """Return what the outbox keeps: without secrets, and with the channel and severity that the spec gives."""
        secrets = [settings.slack_token]
        severity: Severity = SEVERITIES[self.kind]
        channel: str | None = settings.slack_channel
        if spec is not None:
            severity = spec.alerts.severity.get(self.kind, severity)
            channel = spec.alerts.channel_of(self.kind, severity, settings.slack_channel)
        links = ((("Open the run in Airflow", self.url),) if self.url else ()) + self.links
        return Message(
            cause=self.cause or uuid.uuid4().hex,
            at=utc_now().isoformat(),
            channel=channel or "",
            text=self.as_slack(secrets),
            kind=self.kind,
            severity=severity,
            headline=self.headline,
            sentence=_shortened(redact(self.sentence, secrets)),
            model=spec.name if spec is not None else "",
            owner=spec.owner if spec is not None else "",
            dag_id=self.dag_id or "",
            task_id=self.task_id or "",
            day=self.day or "",
            run_id=self.run_id or "",
            links=tuple((words, redact_link(address, secrets)) for words, address in links),
            facts=tuple((name, redact(value, secrets)) for name, value in self.facts),
            thread=self.thread,
            closes=self.closes,
        )


def report(settings: Settings, alert: Alert, spec: ModelSpec | None = None) -> bool:
    """Report what was not reported yet: in the log, and in the outbox, from which the scheduler sends it.

    Never raises. Says whether it is new, and kept.
    """
    try:
        message, line = alert.as_message(settings, spec), alert.as_line([settings.slack_token])
        kept = _keep(settings, message)
        if kept == _KNOWN:
            # What closes nothing, and what was said before, is not worth a line of its own.
            log.log(logging.DEBUG if alert.closes else logging.INFO, "Reported before: %s", line)
            return False
        log.log(_LEVELS[message.severity], "%s", line)
        return kept is not None
    except Exception as err:
        # Only the type: its text may hold anything, and this is the last line of defence.
        log.error("An alert could not be reported: %s", type(err).__name__)
        return False


def send(settings: Settings, alert: Alert, spec: ModelSpec | None = None) -> bool:
    """Report something as :func:`report` does, and send it to Slack at once.

    Takes at most five seconds, whatever store, Slack or network do, and never raises. Says whether Slack took the
    message now; what it did not take is kept and sent later.
    """
    try:
        message, line = alert.as_message(settings, spec), alert.as_line([settings.slack_token])
        answer = _within_limit(lambda: _deliver(settings, message))
        if answer == _KNOWN:
            log.info("Reported before: %s", line)
            return False
        log.log(_LEVELS[message.severity], "%s", line)
        if answer is not None:
            log.warning("Slack did not get this alert: %s", answer)
        return answer is None and bool(settings.slack_token)
    except Exception as err:
        log.error("An alert could not be sent: %s", type(err).__name__)
        return False


def send_waiting(settings: Settings, seconds: float = _ROUND_S) -> None:
    """Send what is in the outbox, in order; raises what the store raises."""
    outbox = Outbox(Store.of(settings))
    if settings.slack_token:
        Delivery(settings, outbox, caller(settings)).run(seconds)


_KNOWN = "reported before"


def _keep(settings: Settings, message: Message) -> Message | str | None:
    """Put a message into the outbox, and return it as it is kept, or ``_KNOWN``; None: the outbox did not take it."""
    outbox = Outbox(Store.of(settings))
    try:
        kept = outbox.put(message)
        if kept is not None and not (settings.has_slack and kept.channel):
            outbox.mark_sent(kept)  # nobody will send it
    except Exception as err:  # told now rather than never
        log.warning("The outbox did not take this alert: %s: %s", type(err).__name__, redact_line(err))
        return None
    return kept or _KNOWN


def _deliver(settings: Settings, message: Message) -> str | None:
    """Keep a message and send it after those that wait; return None, ``_KNOWN`` or the problem."""
    kept = _keep(settings, message)
    if isinstance(kept, str):
        return kept
    if not settings.slack_token:
        return None
    if not message.channel:
        return "a token but no channel is set: set WINDSOCK_SLACK_CHANNEL or alerts.slack_channel"
    call, outbox = caller(settings), Outbox(Store.of(settings))
    if kept is None:
        try:
            call("chat.postMessage", channel=message.channel, text=message.text, unfurl_links=False)
        except Refused as err:
            return str(err)
        return None
    problem = Delivery(settings, outbox, call).run(_LIMIT_S - 1)
    if problem is None or kept.name not in {waiting.name for waiting in outbox.waiting()}:
        return None
    return f"{problem}. It is kept, and sent later"


def _within_limit(work: Callable[[], str | None]) -> str | None:
    """Return what some work returns, or says of its failure, but wait no longer than the limit.

    It goes on in a thread that is left behind when time is up: neither a resolver that hangs nor a server that drips
    bytes can be interrupted from within.
    """
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(work())
        except BaseException as err:  # whatever happens here must not reach the run
            answers.put(f"{type(err).__name__}: {redact_line(err)}")

    # A daemon, so that a process that ends does not wait for it.
    threading.Thread(target=run, name="windsock-alert", daemon=True).start()
    try:
        return answers.get(timeout=_LIMIT_S)
    except queue.Empty:
        return "no answer in time"


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 14].rstrip() + " ... (shortened)"
