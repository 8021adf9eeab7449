"""The ``promote`` step: a version that passed the gate becomes champion, if nobody was faster.

Options: ``version``; ``champion_seen`` (what the gate compared with); ``reason``; ``by`` (who approved);
``allow_replay``. The verdict is read from the run folder, for a refit from its judged twin's: what a caller claims
promotes nothing.
"""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from windsock import promotions
from windsock.errors import ChampionChanged, GateFailed, SpecError
from windsock.gate.step import judge, passed_against, publish, summary_of
from windsock.promotions import Promotion
from windsock.registry.versions import reconcile
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.version_index import VersionInfo, judged_twin, version_info

log = logging.getLogger(__name__)

_ROUNDS = 3
"""How often a promotion is judged again because the champion changed, before the task gives way."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Promote a version.

    Returns:
        ``promoted``, ``version`` (and ``refit_of``, if it is one), ``previous``, ``in_force_from``, ``seq`` and
        ``judged_again`` (the champions that it had to be compared with anew). A replayed run gives ``promoted`` False
        and ``why``.

    Raises:
        GateFailed: It did not pass, or did not pass against the champion now in force.
        ChampionChanged: The champion kept changing.
        SpecError: No version was named, or there is no such version.
    """
    settings, spec = ctx.settings, ctx.spec
    version = ctx.options.get("version")
    if version is None:
        raise SpecError(f"{spec.name}: which version to promote is not said. Give the option 'version'.")
    info = version_info(settings, spec, str(version))
    judged = judged_twin(settings, spec, info)
    if not ctx.live and not ctx.options.get("allow_replay"):
        why = f"{ctx.origin} is a replay: replays promote nothing unless allow_replay is set."
        log.info("%s: version %s is not promoted: %s", spec.name, info.version, why)
        return {"promoted": False, "version": info.version, "why": why}
    entry = _done_before(settings, spec, info, ctx.origin)
    again: list[str | None] = []
    if entry is None:
        seen = ctx.options.get("champion_seen")
        entry, again = _promote(ctx, info, judged, str(seen) if seen is not None else None)
    return {"promoted": True, **in_force(ctx, entry), "judged_again": again}


def new_entry(
    ctx: StepContext,
    kind: Literal["promote", "rollback"],
    info: VersionInfo,
    champion: Promotion | None,
    reason: str,
    gate_summary: Mapping[str, Any] | None = None,
) -> Promotion:
    """Return the entry by which a version follows the champion now in force; the options may give reason and person."""
    return Promotion(
        seq=0,
        kind=kind,
        version=info.version,
        run=info.run,
        previous=champion.version if champion is not None else None,
        in_force_from=promotions.first_day_in_force(ctx.settings, ctx.spec, info.as_of),
        as_of=info.as_of,
        reason=str(ctx.options.get("reason") or reason),
        gate_summary=gate_summary or {},
        by=str(ctx.options.get("by") or ctx.origin),
        origin=ctx.origin,
    )


def in_force(ctx: StepContext, entry: Promotion) -> dict[str, Any]:
    """Let MLflow's aliases follow an entry, and return what a step says of it."""
    reconcile(ctx.settings, ctx.spec, expected=True)
    twin = version_info(ctx.settings, ctx.spec, entry.version).refit_of
    return {
        **({"refit_of": twin} if twin else {}),
        "version": entry.version,
        "previous": entry.previous,
        "in_force_from": entry.in_force_from.isoformat(),
        "seq": entry.seq,
        "gate": dict(entry.gate_summary),
    }


def _promote(
    ctx: StepContext, info: VersionInfo, judged: VersionInfo, seen: str | None
) -> tuple[Promotion, list[str | None]]:
    settings, spec = ctx.settings, ctx.spec
    again: list[str | None] = []
    for _ in range(_ROUNDS):
        champion = promotions.current(settings, spec)
        now = champion.version if champion is not None else None
        if now != seen:
            log.warning("%s: the champion is %s, not %s as when it was judged: judging again", spec.name, now, seen)
        evidence = passed_against(settings, spec, judged, now)
        if evidence is None:
            verdict = judge(settings, spec, judged.version, now)
            publish(settings, spec, verdict)
            if not verdict.passed:
                raise GateFailed(f"{spec.name}: judged against champion {now or 'none'}: {verdict.sentence()}")
            evidence = verdict.to_json()
            again.append(now)
        seen = now
        summary, reason = summary_of(evidence), "passed the gate"
        if info.refit_of:  # the verdict is its twin's
            summary, reason = (
                {**summary, "judged": judged.version},
                f"refit of version {judged.version}, which {reason}",
            )
        entry = new_entry(ctx, "promote", info, champion, reason, summary)
        try:
            return promotions.append(settings, spec, entry, after=champion), again
        except ChampionChanged as err:
            log.warning("%s", err)
    raise ChampionChanged(
        f"{spec.name}: the champion changed {_ROUNDS} times while version {info.version} was being promoted. "
        "Somebody else is promoting at the same time; this is tried again."
    )


def _done_before(settings: Settings, spec: ModelSpec, info: VersionInfo, origin: str) -> Promotion | None:
    """Return the entry that an earlier try of this very run has made, or the one in force if it is this version.

    A version whose refit is in force is so by that.
    """
    entries = promotions.history(settings, spec)
    if entries and info.version in (entries[-1].version, version_info(settings, spec, entries[-1].version).refit_of):
        return entries[-1]
    named = [p for p in entries if p.kind == "promote" and p.version == info.version and p.origin == origin]
    return named[-1] if named and origin != "manual" else None
