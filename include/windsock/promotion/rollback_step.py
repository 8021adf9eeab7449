"""The ``rollback`` step: back to an earlier champion, whole, in one entry of the log.

The unit that returns is a version with its run folder: model files, features, reference
data and pins belong to it. Days already scored keep their scores; the version that
returns is in force from the next day on.

Options: ``to_version`` (absent: the champion before this one), ``reason``, ``by``,
``allow_replay``.
"""

import logging
from collections.abc import Sequence
from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.promotions import Promotion
from windsock.registry.aliases import reconcile
from windsock.registry.models import load_version
from windsock.registry.versions import version_info
from windsock.spec import ModelSpec
from windsock.steps import StepContext

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Put an earlier champion back in force.

    Returns:
        ``version`` now in force, ``previous`` that went, ``in_force_from``, ``seq``.

    Raises:
        SpecError: There is nothing to go back to, or the version was never champion.
        DataContractError: The earlier version's files are not what they were.
        ChampionChanged: Somebody else promoted meanwhile.
    """
    settings, spec = ctx.settings, ctx.spec
    if not ctx.live and not ctx.options.get("allow_replay"):
        raise SpecError(f"{ctx.origin} is a replay: it rolls nothing back unless allow_replay is set.")
    entries = promotions.history(settings, spec)
    done = [p for p in entries if p.kind == "rollback" and p.origin == ctx.origin and ctx.origin != "manual"]
    entry = done[-1] if done else _roll_back(ctx, entries)
    reconcile(settings, spec, expected=True)
    return {
        "version": entry.version,
        "previous": entry.previous,
        "in_force_from": entry.in_force_from.isoformat(),
        "seq": entry.seq,
    }


def stack_of(entries: Sequence[Promotion]) -> list[str]:
    """Return the champions that a rollback can walk down, the one in force last.

    A promotion puts its version on top; a rollback takes off everything above the version it returned to.
    """
    stack: list[str] = []
    for entry in entries:
        if entry.kind == "rollback" and entry.version in stack:
            del stack[len(stack) - stack[::-1].index(entry.version) :]
        else:
            stack.append(entry.version)
    return stack


def _roll_back(ctx: StepContext, entries: Sequence[Promotion]) -> Promotion:
    settings, spec = ctx.settings, ctx.spec
    target = _target(spec, entries, ctx.options.get("to_version"))
    current = entries[-1]
    info = version_info(settings, spec, target)
    load_version(settings, spec, target)  # it must be able to score before anybody relies on it
    entry = Promotion(
        seq=0,
        kind="rollback",
        version=info.version,
        run=info.run,
        previous=current.version,
        in_force_from=promotions.first_day_in_force(settings, spec, info.as_of, current),
        as_of=info.as_of,
        reason=str(ctx.options.get("reason") or f"rolled back from version {current.version}"),
        by=str(ctx.options.get("by") or ctx.origin),
        origin=ctx.origin,
    )
    return promotions.append(settings, spec, entry, after=current)


def _target(spec: ModelSpec, entries: Sequence[Promotion], wanted: Any) -> str:
    if not entries:
        raise SpecError(f"{spec.name}: there is nothing to roll back: no version has ever been promoted.")
    current = entries[-1].version
    stack = stack_of(entries)
    if wanted is None:
        if len(stack) < 2:
            raise SpecError(
                f"{spec.name}: there is nothing to roll back to: version {current} is the first champion. "
                "Train and promote another one instead."
            )
        return stack[-2]
    former = {p.version for p in entries}
    if str(wanted) == current:
        raise SpecError(f"{spec.name}: version {current} is the champion already.")
    if str(wanted) not in former:
        raise SpecError(
            f"{spec.name}: version {wanted} was never champion, so one cannot go back to it. "
            f"Former champions: {', '.join(sorted(former - {current})) or 'none'}. "
            f"To make it champion, run {spec.name}_promote: it goes through the gate."
        )
    return str(wanted)
