"""What of a step's result people must know, as alerts: made once for each step, wherever it ran.

A result says what is so; whether that is news is said by the outbox, which knows each cause and each open thread. No
value of a row goes into a message: counts, rules, columns and figures of the model do.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from windsock.alerts import Alert, report
from windsock.errors import WindsockError
from windsock.ledger import DECISIONS, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec

Result = Mapping[str, Any]
_MOST_FACTS = 6
_CAUSES = {
    "inputs": ": its inputs have moved",
    "concept": ", though its inputs are as before: what they mean has changed",
}


@dataclass(frozen=True)
class Finished:
    """A step that has ended, and where."""

    settings: Settings
    spec: ModelSpec
    dag_id: str
    task_id: str
    run_id: str
    day: str | None
    url: str
    links: tuple[tuple[str, str], ...] = ()

    def alert(self, headline: str, sentence: str, cause: str, **more: Any) -> Alert:
        """Return an alert about this step."""
        alert = Alert(self.dag_id, sentence, self.task_id, self.day, self.url, headline, cause, links=self.links)
        return replace(alert, run_id=self.run_id, **more)


def tell(settings: Settings, model: str, step: str, result: Result, **where: Any) -> None:
    """Report what people must know of a step's result; never raises, and waits for nobody.

    ``where`` are the other fields of :class:`Finished`.
    """
    if (news := NEWS.get(step)) is not None:
        done = Finished(settings, get_spec(settings, model), **where)
        is_past = cache(partial(_is_past, done, step))  # a listing, asked for if anything would end
        for alert in news(done, result):
            if not (alert.closes and is_past()):
                report(settings, alert, done.spec)


def _is_past(done: Finished, step: str) -> bool:
    """Say whether a later day than this one is on record: a day that is run again ends nothing that goes on."""
    try:
        days = Ledger.of(done.settings, done.spec.name, DECISIONS if step == "govern" else step).days()
    except (WindsockError, OSError):  # the outbox looks at what it has told itself
        return False
    return done.day is not None and bool(days) and str(days[-1]) > done.day


def _of_ingest(done: Finished, result: Result) -> Iterator[Alert]:
    """Tell of a day of which many rows were set aside, until fewer are."""
    aside, rows = int(result.get("quarantined") or 0), int(result.get("rows") or 0)
    share = aside / max(aside + rows, 1)
    thread = f"quarantine {done.dag_id} {done.task_id}"
    most = done.spec.alerts.quarantine_share
    if share > most:
        counts = sorted(dict(result.get("by_rule", {})).items(), key=lambda each: -int(each[1]))
        sentence = (
            f"{aside:,} of {aside + rows:,} rows of {done.day} ({share:.1%}) were set aside, more than "
            f"{most:.1%} (alerts.quarantine_share). The rest is published; what was set aside lies in the table "
            "quarantine, each row with the rule that it breaks."
        )
        facts = tuple((str(rule), f"{count:,} rows") for rule, count in counts[:_MOST_FACTS])
        cause = f"quarantine {done.dag_id} {done.task_id} {done.day} {aside}"
        yield done.alert("Many rows set aside", sentence, cause, kind="quarantine", thread=thread, facts=facts)
    elif result.get("status") == "published":
        sentence = f"Of {done.day}, {share:.1%} of the rows were set aside, no more than {most:.1%}."
        cause = f"quarantine {done.dag_id} {done.task_id} {done.day} over {done.run_id}"
        yield done.alert("Many rows set aside", sentence, cause, kind="quarantine", thread=thread, closes=True)


def _of_monitor(done: Finished, result: Result) -> Iterator[Alert]:
    """Tell of broken data, of a champion that has become worse, and of labels that stop or come late, until it is over.

    A night that judges nothing, as its data is broken or its labels are missing, ends none of it.
    """
    record = Ledger.of(done.settings, done.spec.name, "monitor").get_if_whole(date.fromisoformat(str(done.day)))
    night = record.detail if record is not None else result
    broken = [str(each["sentence"]) for each in night.get("broken") or ()]
    thread, cause = f"broken {done.spec.name}", f"broken {done.spec.name} {done.day}"
    if broken:
        more = f" and {len(broken) - _MOST_FACTS} more" if len(broken) > _MOST_FACTS else ""
        sentence = (
            f"{'; '.join(broken[:_MOST_FACTS])}{more}. Neither drift nor performance is judged, and no retraining is "
            "asked for, while it is so: nobody should learn from it. If the sender means it, train by hand: the new "
            "days are usual from then on."
        )
        yield done.alert("Data is broken", sentence, cause, kind="silence", thread=thread)
    elif night.get("examined", night.get("champion") is not None):
        mended = f"On {done.day} no column is broken."
        yield done.alert("Data is broken", mended, f"{cause} over", kind="silence", thread=thread, closes=True)
    labels = night.get("labels") or {}
    thread, cause = f"labels {done.spec.name}", f"labels {done.spec.name} {done.day}"
    about = {"kind": "silence", "thread": thread}
    if labels.get("alarm"):
        yield done.alert("Labels are amiss", str(labels.get("why")), cause, **about)
    elif labels:
        yield done.alert(
            "Labels are amiss", f"On {done.day} they come as usual.", f"{cause} over", closes=True, **about
        )
    found, thread = result.get("performance") or {}, f"performance {done.spec.name}"
    if result.get("degraded"):
        words = _CAUSES.get(str(night.get("cause")), "")
        champion = f"Version {result.get('champion')} has become worse{words}. {result.get('summary', '')}."
        facts = tuple(
            (words, f"{found[name]:.4g}")
            for name, words in (("value", str(found.get("metric", "now"))), ("holdout", "promised"))
            if isinstance(found.get(name), float)
        )
        cause = f"performance {done.spec.name} {done.day}"
        yield done.alert("Performance fell", champion, cause, kind="performance", thread=thread, facts=facts)
    elif found.get("loss") is not None and not (broken or found.get("degraded") or labels.get("unfinished")):
        sentence = f"On {done.day} the champion is as good as its holdout promised, or chance explains the difference."
        cause = f"performance {done.spec.name} {done.day} over"
        yield done.alert("Performance fell", sentence, cause, kind="performance", thread=thread, closes=True)


def _of_govern(done: Finished, result: Result) -> Iterator[Alert]:
    """Tell of a drift from the first night on which it is believed, of what follows, and when it is over.

    A quiet night, or one that judges nothing, in the middle of it is not its end.
    """
    action, thread = str(result.get("action")), f"drift {done.spec.name}"
    reasons = "; ".join(str(reason) for reason in result.get("reasons", ()))
    for_labels = result.get("trigger") == "labels"
    if for_labels and action == "retrain":
        asked = f"A new training is asked for, as of {result.get('as_of')}. Why: {reasons}."
        yield done.alert(
            "Enough new labels", asked, f"labels {done.spec.name} {result.get('dedupe_key')}", kind="drift"
        )
    if (for_labels or action == "none") and result.get("onset") is None:
        sentence = f"Since {done.day} no drift or loss goes on: {reasons}."
        cause = f"drift {done.spec.name} {done.day} over"
        yield done.alert("Drift", sentence, cause, kind="drift", thread=thread, closes=True)
    elif not for_labels and (action in ("retrain", "escalate") or (action != "none" and _is_believed(done))):
        useful_from = str(result.get("useful_from"))
        until = f"until {useful_from}, when new data can be learnt from" if useful_from > str(done.day) else "for now"
        follows = {
            "retrain": f"A new training is asked for, as of {result.get('as_of')}.",
            "escalate": "No training is asked for, and somebody has to look.",
            "wait": f"Retraining waits {until}.",
        }.get(action, "No retraining is asked for.")
        cause = f"drift {done.spec.name} {result.get('dedupe_key')} {action}"
        if action == "escalate":  # each reason for it is news
            cause += f" {next(iter(result.get('reasons', ())), '')}"
        yield done.alert("Drift", f"{follows} Why: {reasons}.", cause, kind="drift", thread=thread)


def _is_believed(done: Finished) -> bool:
    """Say whether enough recent nights had a signal, by the monitor's records."""
    day, policy = date.fromisoformat(str(done.day)), done.spec.retraining
    nights = Ledger.of(done.settings, done.spec.name, "monitor").between(day - timedelta(days=policy.out_of - 1), day)
    now = nights[day].detail.get("champion") if day in nights else None
    details = (night.detail for night in nights.values())
    on = sum(bool(d.get("drifted") or d.get("degraded")) for d in details if d.get("champion") == now)
    return on >= policy.needed


def _of_gate(done: Finished, result: Result) -> Iterator[Alert]:
    """Tell of a challenger that was refused."""
    if result.get("passed") is False:
        failed = [check for check in result.get("checks", ()) if not check["passed"]]
        facts = tuple((str(c["name"]), _value_of(c)) for c in failed[:_MOST_FACTS])
        cause = f"refused {done.spec.name} {result['version']} {result.get('champion_seen')} {done.run_id}"
        yield done.alert("Challenger refused", str(result["why"]), cause, kind="refusal", facts=facts)


def _value_of(check: Mapping[str, Any]) -> str:
    def short(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return f"{short(check['value'])} (limit {short(check['threshold'])})"


def _of_promote(done: Finished, result: Result) -> Iterator[Alert]:
    """Tell of a new champion; its approval is no question any more."""
    if result.get("promoted"):
        approved = f"Version {result['version']} was approved."
        yield done.alert("Approval", approved, f"answered {done.run_id}", thread=approval_thread(done), closes=True)
        yield _change(done, result, "New champion", "promotion")


def approval_thread(done: Any) -> str:
    """Name the thread of a question to a person, which is of one run."""
    return f"approval {done.dag_id} {done.run_id}"


def _of_rollback(done: Finished, result: Result) -> Iterator[Alert]:
    """Tell of a champion that is back."""
    yield _change(done, result, "Rolled back", "rollback")


def _change(done: Finished, result: Result, headline: str, kind: Any) -> Alert:
    sentence = (
        f"Version {result['version']} of {done.spec.name} is champion: it scores events from "
        f"{result['in_force_from']} on. Before: {result.get('previous') or 'none'}."
    )
    if result.get("refit_of"):
        sentence += f" It is the refit of version {result['refit_of']}, which passed the gate."
    if look := (result.get("gate") or {}).get("look"):
        sentence += (
            f" It is a recovery after a drift: look {look['number']} of at most {look['most']} proved it better; "
            f"{look['spent']:.3g} of the error rate against the champion before is spent, {look['left']:.3g} is left."
        )
    cause = f"{kind} {done.spec.name} {result.get('seq')}"
    return done.alert(headline, sentence, cause, kind=kind)


NEWS: Mapping[str, Callable[[Finished, Result], Iterator[Alert]]] = MappingProxyType(
    {
        "ingest": _of_ingest,
        "labels": _of_ingest,
        "monitor": _of_monitor,
        "govern": _of_govern,
        "gate": _of_gate,
        "promote": _of_promote,
        "rollback": _of_rollback,
    }
)
"""Step name to what makes alerts of its result."""
