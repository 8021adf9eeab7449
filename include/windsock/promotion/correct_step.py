"""The ``correct`` step: the champion is in force from an earlier day, because it took force too late.

A day recorded by mistake moves the day from which a promotion is in force (see ``promotions.first_day_in_force``). Once
it has been taken out (``windsock void``), this moves the champion back to the first day that nobody has scored, by one
more entry of the log: days that are scored keep their champion, and the log is only ever added to.

Options: ``reason``, ``by``.
"""

from dataclasses import replace
from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.steps import StepContext


def run(ctx: StepContext) -> dict[str, Any]:
    """Put the champion in force from the first day without a score.

    Returns:
        ``version``, ``in_force_from``, ``instead_of`` (the day from which it was in force) and ``seq``.

    Raises:
        SpecError: No reason is given, there is no champion, or it is in force from the earliest possible day already.
        ChampionChanged: Somebody else promoted meanwhile.
    """
    settings, spec = ctx.settings, ctx.spec
    reason = str(ctx.options.get("reason") or "").strip()
    if not reason:
        raise SpecError(f"{spec.name}: say why the promotion is corrected. Give the option 'reason'.")
    champion = promotions.current(settings, spec)
    if champion is None:
        raise SpecError(f"{spec.name}: there is nothing to correct: no version has ever been promoted.")
    first = promotions.first_day_not_scored(settings, spec, champion)
    if first >= champion.in_force_from:
        raise SpecError(
            f"{spec.name}: version {champion.version} is in force from {champion.in_force_from}, and cannot be from an "
            f"earlier day than {first}: its training knew everything up to {champion.as_of}, and days that are scored "
            f"keep their champion. A score that should not be is taken out by 'windsock void {spec.name} score DAY'."
        )
    entry = replace(
        champion,
        kind="correct",
        in_force_from=first,
        reason=reason,
        by=str(ctx.options.get("by") or ctx.origin),
        origin=ctx.origin,
    )
    made = promotions.append(settings, spec, entry, after=champion)
    return {
        "version": made.version,
        "in_force_from": first.isoformat(),
        "instead_of": champion.in_force_from.isoformat(),
        "seq": made.seq,
    }
