"""What an edit of the label means: when it becomes known is a fact for everybody; what it is, is another question."""

import re
from collections.abc import Iterator, Sequence

from windsock.days import spans
from windsock.errors import SpecError
from windsock.features.definition import normal_form, reads_labels
from windsock.plan.change import NEXT_TRAINING, Change, Days
from windsock.plan.columns import another_model
from windsock.plan.standing import Standing
from windsock.spec import ModelSpec

_DAY_S = 86_400


def label_changes(base: ModelSpec, spec: ModelSpec, standing: Standing, days: Sequence[Days]) -> Iterator[Change]:
    """Yield what differs between what two specs say of the label."""
    before, after = base.label, spec.label
    if before.delay_days != after.delay_days:
        yield _delay(base, spec, standing, days)
    if before.task != after.task:
        refused = another_model("label.task", spec, standing)
        yield Change("~", "label.task", before.task, after.task, "every day", refused=refused)
    new_question = (
        "it answers another question: floors and a person judge the next version; where it is compared with the "
        "champion, it is on the new label"
    )
    if before.column != after.column:
        yield Change("~", "label.column", before.column, after.column, NEXT_TRAINING, (new_question,))
    if before.delivered_as != after.delivered_as and before.column == after.column:
        yield Change("~", "label.from", before.delivered_as, after.delivered_as, "days from now on", (new_question,))
    if before.files != after.files:
        was, now = (str(label.files.url) if label.files is not None else "a column" for label in (before, after))
        yield Change("~", "label.files", was, now, "days from now on", ("labels that are stored stay", new_question))


def _delay(base: ModelSpec, spec: ModelSpec, standing: Standing, days: Sequence[Days]) -> Change:
    old, notes = base.label.delay_days, list[str]()
    stale = [each for each in days if each.stale]
    if standing.champion is not None:
        what = "known later" if spec.label.delay_days > old else "known earlier"
        notes.append(
            f"labels are {what} for everybody, champion {standing.champion.version} too: it is served other values "
            "than it learned from, so train again soon"
        )
    notes += [f"{each.table}: {len(each.stale)} days are stale: {spans(each.stale)}" for each in stale]
    for sql, text in _texts_reading_labels(spec, standing).items():
        if found := hard_coded_delay(text, old):
            notes.append(f"{sql} holds {found}, which is {old} days: is the delay written into the SQL?")
    return Change("~", "label.delay_days", str(old), str(spec.label.delay_days), "every day, at once", tuple(notes))


def hard_coded_delay(sql: str, days: int) -> str | None:
    """Return what in an SQL text equals a delay: so many seconds, milliseconds or microseconds, or an interval."""
    text = normal_form(sql)
    units = {str(days * _DAY_S * unit) for unit in (1, 1_000, 1_000_000)} if days else set()
    if number := next((n for n in re.findall(r"\b\d+\b", text) if n in units), None):
        return str(number)
    interval = re.search(rf"interval '?{days} days?'?|interval '{days}' days?|to_days \( {days} \)", text)
    return str(interval[0]) if interval is not None and days else None


def _texts_reading_labels(spec: ModelSpec, standing: Standing) -> dict[str, str]:
    found: dict[str, str] = {}
    owners = [(spec, "")]
    if standing.own is not None and standing.champion is not None:
        owners.append((standing.own, f" of champion {standing.champion.version}"))
    for owner, whose in owners:
        for view in owner.features.views:
            try:
                text = owner.sql_of(view)
                if reads_labels(owner, view) and text not in found.values():
                    found[f"{view.sql}{whose}"] = text
            except SpecError:
                continue
    return found
