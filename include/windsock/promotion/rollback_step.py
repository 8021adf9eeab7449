"""The ``rollback`` step: back to an earlier champion, whole, in one entry of the log.

What returns is a version with its run folder; it is in force from the next day on, and scored days keep their scores.

Options: ``to_version`` (absent: the champion before this one), ``reason``, ``by``, ``allow_replay``.
"""

from collections.abc import Sequence
from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.promotion.step import in_force, new_entry
from windsock.promotions import Promotion
from windsock.registry.versions import load_version
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.version_index import version_info


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
    if done:
        return in_force(ctx, done[-1])
    target, current = _target(spec, entries, ctx.options.get("to_version")), entries[-1]
    load_version(settings, spec, target)  # it must be able to score before anybody relies on it
    reason = f"rolled back from version {current.version}"
    entry = new_entry(ctx, "rollback", version_info(settings, spec, target), current, reason)
    return in_force(ctx, promotions.append(settings, spec, entry, after=current))


def stack_of(entries: Sequence[Promotion]) -> list[str]:
    """Return the champions that a rollback can walk down, the one in force last.

    A promotion puts its version on top; a rollback takes off everything above the version it returned to. A correction
    changes no champion.
    """
    stack: list[str] = []
    for entry in (entry for entry in entries if entry.kind != "correct"):
        if entry.kind == "rollback" and entry.version in stack:
            del stack[len(stack) - stack[::-1].index(entry.version) :]
        else:
            stack.append(entry.version)
    return stack


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
