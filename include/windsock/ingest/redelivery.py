"""A redelivery that is worse than what it replaces: it is refused, unless a person says why it shall be let in.

A sender that repeats a day usually mends it. One that sends half of it, or leaves the labels out, has made a mistake,
and the day that stands is the better one. Only another delivery is compared: if the same one gives fewer rows by now,
somebody has changed the rules on purpose. Small losses add up, so each is compared with all that the day was since a
person last had a say. That decides what is refused, never what a record says.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from windsock.errors import SpecError
from windsock.ledger import DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.steps import StepContext

ACCEPTED = "accepted_worse"
"""Where a record says who let a worse redelivery in, why, and what was lost by it."""


def compare(
    ctx: StepContext,
    previous: DayRecord | None,
    detail: Mapping[str, Any],
    labels: int | None = None,
    gone: Collection[str] = (),
    held: Sequence[str] = (),
) -> tuple[list[str], dict[str, Any]]:
    """Compare a delivery with the published day that it replaces.

    Args:
        ctx: The step.
        previous: The day's record in force.
        detail: What the new record is going to say: source, rows published and, of events, ``stats``.
        labels: How many labels come with the events; None: they are files of their own, or this is one.
        gone: Columns that somebody reads and that the delivery lacks.
        held: What else speaks against the delivery, and a person can let in.

    Returns:
        What it would take away and nobody lets in, one sentence for each loss: it is to be refused, then; and what the
        record says besides of losses that a person let in.

    Raises:
        SpecError: A person lets it in, but does not say why.
    """
    if previous is not None and previous.status != "rejected" and same_delivery(previous, detail):
        # Run again, it stays true.
        return [], {name: previous.detail[name] for name in (ACCEPTED,) if name in previous.detail}
    lost, instead_of = list(held), None
    if previous is not None and previous.status == "published":
        losses = (list(_losses(ctx.spec, one, detail, labels, gone)) for one in _fullest_first(ctx, previous))
        lost, instead_of = next(filter(None, losses), []) + lost, previous.content_hash
    if not lost:
        return [], {}
    if not _is_accepted(ctx):
        return lost, {}
    by = str(ctx.options.get("by") or ctx.origin)
    return [], {ACCEPTED: {"by": by, "reason": _reason(ctx), "lost": lost, "instead_of": instead_of}}


def _losses(
    spec: ModelSpec, previous: DayRecord, detail: Mapping[str, Any], labels: int | None, gone: Collection[str]
) -> Iterator[str]:
    share = spec.validation.redelivery_loss
    rule = f"rule 'a redelivery takes away at most {share:.0%}', validation.redelivery_loss"
    before, now = _published(previous), detail["published"]
    if now < (1 - share) * before:
        events = "events" in previous.outputs
        what = f"{spec.events.key}: {now:,} rows" if events else f"{spec.label.column}: {now:,} labels"
        yield f"{what} would replace {before:,} published ones ({rule})."
    if not before or not now or "stats" not in detail:
        return
    known = previous.rows("labels")
    if labels is not None and labels / now < known / before - share:
        yield f"{spec.label.column}: {labels:,} of {now:,} rows have a label, but {known:,} of {before:,} had ({rule})."
    was, nulls = (one.get("stats", {}).get("null_share", {}) for one in (previous.detail, detail))
    held = {name for name, _ in previous.outputs["events"].columns}  # none in records of version 0.1
    for name, null in nulls.items():
        if name in held and null > was.get(name, 0.0) + share:
            yield f"{name}: {null:.0%} of {now:,} values are null, but {was.get(name, 0.0):.0%} were ({rule})."
    for name in sorted(held.intersection(gone)):
        there = 1 - was.get(name, 0.0)
        yield f"{name}: the column is missing, but {there:.0%} of {before:,} values were there ({rule})."


def _fullest_first(ctx: StepContext, previous: DayRecord) -> list[DayRecord]:
    """List the records, most rows first, since a day was taken out, a worse delivery let in, or rules changed.

    They changed where one delivery has two records: what the day was before, it was by other rules.
    """
    stage = "ingest" if "events" in previous.outputs else "labels"
    since: list[DayRecord] = []
    for record in Ledger.of(ctx.settings, ctx.spec.name, stage).history(ctx.day):
        begins_anew = record.status == "void" or ACCEPTED in record.detail
        if begins_anew or any(same_delivery(one, record.detail) for one in since):
            since = []
        if record.status == "published":
            since.append(record)
    return sorted([*since, previous], key=_published, reverse=True)


def _published(record: DayRecord) -> int:
    return record.rows("events" if "events" in record.outputs else "labels")


def _is_accepted(ctx: StepContext) -> bool:
    """Say whether a person lets a worse redelivery of the day in.

    Raises:
        SpecError: Nobody says why.
    """
    if not ctx.options.get("accept_worse"):
        return False
    if not _reason(ctx):
        raise SpecError(
            f"{ctx.spec.name}: accept_worse lets a delivery of {ctx.day} in that is worse than what stands, or than "
            "the days before; say why, as it is kept in the record. Give the option 'reason'."
        )
    return True


def how_to_accept(ctx: StepContext, stage: str) -> str:
    """Say how a person lets the delivery in."""
    name, day = ctx.spec.name, ctx.day
    step = "labels" if stage == "labels" else "ingest"
    return (
        f"If it is right as it is, trigger {name}_{step} for {day} with 'Accept worse' and a reason, or run 'windsock "
        f"step {step} --model {name} --key {day} -o accept_worse=true -o reason=...'."
    )


def _reason(ctx: StepContext) -> str:
    return str(ctx.options.get("reason") or "").strip()


def same_delivery(previous: DayRecord, detail: Mapping[str, Any]) -> bool:
    """Say whether a record was made of the delivery that a new one is going to name."""
    known = previous.detail.get("source", {}).get("hash")
    return known is not None and known == detail["source"]["hash"]
