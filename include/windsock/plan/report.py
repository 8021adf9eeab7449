"""How a plan is written down: as text, as the Markdown of one comment on a pull request, as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pydantic_core import to_jsonable_python

from windsock.days import spans
from windsock.errors import SpecError
from windsock.plan.change import Change, Days, Difference, ModelPlan, worst
from windsock.plan.days import total_seconds

MARKER = "<!-- windsock plan -->"
"""First line of the Markdown, by which a workflow finds the comment that it wrote before."""


def as_text(plans: Sequence[ModelPlan]) -> str:
    """Return plans for a terminal."""
    return "\n\n".join("\n".join(_lines(plan)) for plan in plans) + "\n"


def as_markdown(plans: Sequence[ModelPlan]) -> str:
    """Return plans as one comment; models of which nothing changes are named in a line."""
    told = [plan for plan in plans if plan.changes]
    parts = [MARKER, f"### windsock plan: {_verdict(plans)}"]
    for plan in told:
        body = "\n".join(_lines(plan))
        fence = "`" * max(3, 1 + max((len(run) for run in _ticks(body)), default=0))
        head = f"<details open><summary><b>{plan.model}</b>: {_counts(plan)}</summary>"
        parts.append(f"{head}\n\n{fence}diff\n{body}\n{fence}\n</details>")
    if quiet := [plan.model for plan in plans if not plan.changes]:
        parts.append(f"Nothing changes: {', '.join(quiet)}.")
    return "\n\n".join(parts) + "\n"


def as_json(plans: Sequence[ModelPlan]) -> str:
    """Return plans as JSON, with the exit code of each and of all."""
    models = [{**asdict(plan), "exit_code": plan.exit_code} for plan in plans]
    return (
        json.dumps(to_jsonable_python({"models": models, "exit_code": worst(plans)}), indent=1, ensure_ascii=False)
        + "\n"
    )


def say_days(days: Days) -> str:
    """Write the days to compute of one definition, and about how long they take."""
    parts = [
        f"{len(some)} days {what}: {spans(some)}"
        for some, what in ((days.missing, "missing"), (days.stale, "stale"))
        if some
    ]
    return f"{'; '.join(parts)}{_about(days.seconds)}"


def _lines(plan: ModelPlan) -> Iterator[str]:
    newest = f", newest day {plan.newest_day}" if plan.newest_day is not None else ""
    yield (
        f"{plan.model}   against {plan.against}   store {plan.store}{newest}   "
        f"champion {plan.champion or 'none'}, challenger {plan.challenger or 'none'}"
    )
    for note in plan.notes:
        yield f"  ({note})"
    for change in plan.changes:
        yield from _change(change)
    if plan.goes_on:
        yield " ".join(plan.goes_on)
    yield f"{_counts(plan)}   exit {plan.exit_code}"


def _change(change: Change) -> Iterator[str]:
    values = (
        " → ".join(value for value in (change.before, change.after) if value) if change.sign != "=" else change.before
    )
    head = f"{' ' if change.sign == '=' else change.sign} {change.part}"
    yield f"{head}  {values}".rstrip() + f"   [{change.effect}]"
    yield from (f"    {line}" for line in change.diff)
    yield from (f"    {note}" for note in change.notes)
    yield from (f"    {line}" for line in _values(change.values))
    yield from (f"    ✗ {sentence}" for sentence in change.refused)


def _values(values: Sequence[Difference]) -> Iterator[str]:
    widest = max((len(each.feature) for each in values), default=0)
    alike = [each for each in values if each.differs == 0]
    for each in values:
        if each.differs == 0:
            continue
        means = "" if each.after is None else f", mean {each.after:.4g}"
        if each.differs is None:
            yield f"{each.feature:<{widest}}  {each.rows:,} rows{means}"
            continue
        if each.before is not None and each.after is not None:
            means = f", mean {each.before:.4g} → {each.after:.4g}"
        yield f"{each.feature:<{widest}}  {each.differs:.1%} of {each.rows:,} rows differ{means}".replace("%", " %")
    if alike:
        what = "others" if len(alike) < len(values) else "features"
        yield f"{len(alike)} {what}: none of {alike[0].rows:,} rows differs"


def _counts(plan: ModelPlan) -> str:
    changes = [change for change in plan.changes if change.sign != "=" and not change.refused]
    parts = [f"{len(plan.refused)} refused"] if plan.refused else []
    parts.append(f"{len(changes)} change{'s' if len(changes) != 1 else ''}" if changes else "nothing changes")
    if count := sum(days.count for days in plan.days):
        alike = sum(days.standing for days in plan.days)
        also = f", {alike} of them also without this edit" if alike else ""
        parts.append(f"{count} view-days to compute before the next training{_about(total_seconds(plan.days))}{also}")
    return "; ".join(parts)


def _verdict(plans: Sequence[ModelPlan]) -> str:
    code = worst(plans)
    if code == SpecError.exit_code:
        return "refused"
    return "changes" if code else "nothing changes"


def _about(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", about {seconds:.0f} s" if seconds < 90 else f", about {seconds / 60:.0f} min"


def _ticks(text: str) -> list[str]:
    """Return the runs of backticks in a text, which a fence must be longer than."""
    return [run for run in "".join(sign if sign == "`" else " " for sign in text).split() if run]
