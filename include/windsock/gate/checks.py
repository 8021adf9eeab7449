"""What a challenger must show, one function per check.

Every check returns its value, what it was held against and a sentence. A check that
cannot be run has failed (see ``step``): nothing passes for want of evidence.

A new check is a function here, listed in :data:`ALL`; its limit is a field of ``spec.modelling.GateSpec``.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from windsock.gate.compare import compare, effective_clusters, planted_worse, signed
from windsock.gate.context import Check, GateContext
from windsock.gate.sequential import take_look
from windsock.registry.versions import folder_hash
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, MODEL, REQUEST
from windsock.served.metrics import SCORE
from windsock.served.model import largest_difference
from windsock.spec.modelling import LOWER_IS_BETTER

FEWEST_ROWS = 100
FEWEST_POSITIVES = 20
FEWEST_CLUSTERS = 10
PLANTED_SHARE = 0.5
"""Share of rows whose scores the planted worse model has dealt out anew."""

_NOT_COMPARED = "Not compared: too few rows are left from which the champion has not learnt (see evidence)."
_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")


def artifact_is_safe(ctx: GateContext) -> Check:
    """The model folder is the one registered, holds no pickle and loads."""
    store, registered = ctx.store, ctx.info.model_hash
    files = store.files(ctx.info.run_folder, MODEL)
    pickles = [f for f in files if f.endswith(_PICKLES)]
    if pickles:
        return Check("artifact", False, ", ".join(pickles), "no pickle", "Loading a pickle can run any code.")
    if (found := folder_hash(store, ctx.info.run_folder, MODEL)) != registered:
        why = f"The files in {ctx.info.run_folder}/model are not those that were registered as {ctx.info.version}."
        return Check("artifact", False, found[:12], registered[:12], why)
    _ = ctx.model
    return Check(
        "artifact", True, registered[:12], "no pickle", f"{len(files)} plain files, as registered, and it loads."
    )


def rows_are_frozen(ctx: GateContext) -> Check:
    """The holdout is the very file that was frozen before training."""
    now = hashlib.sha256(ctx.run.read_bytes(HOLDOUT)).hexdigest()
    then = ctx.run.read_json(REQUEST).get("files", {}).get(HOLDOUT)
    passed = now == then
    why = (
        f"The {ctx.holdout.num_rows} held-out rows are byte for byte those frozen before training."
        if passed
        else "The held-out rows are not those that were frozen before training: somebody changed the file."
    )
    return Check("frozen_rows", passed, now[:12], then[:12] if then else None, why)


def reproduces_its_scores(ctx: GateContext) -> Check:
    """The loaded model gives the scores that its training recorded."""
    recorded = ctx.run.read_table(HOLDOUT_SCORES).column(SCORE).to_numpy().astype(np.float64)
    if len(recorded) != len(ctx.scores):
        why = f"Training recorded {len(recorded)} scores for {len(ctx.scores)} holdout rows."
        return Check("same_predictions", False, len(recorded), len(ctx.scores), why)
    off = largest_difference(recorded, ctx.scores)
    limit = ctx.model.tolerance
    found = "gives" if off <= limit else "does not give"
    why = f"The artifact, loaded afresh, {found} the {len(recorded)} scores that training recorded."
    return Check("same_predictions", off <= limit, off, limit, why)


def finite_predictions(ctx: GateContext) -> Check:
    """Every score is a number."""
    bad = int((~np.isfinite(ctx.scores)).sum())
    why = f"{bad} of {len(ctx.scores)} scores are NaN or infinite."
    return Check("finite", bad == 0, bad, 0, why)


def enough_evidence(ctx: GateContext) -> Check:
    """The holdout is large enough to judge anything, of its rows those by which two models can be compared."""
    rows = ctx.fair_rows
    units, clusters = f"clusters by {rows.clustered_by}", rows.clusters
    if ctx.recovery is not None and clusters:  # so far out, a bound needs clusters that count alike
        units = f"clusters of equal weight, as the {clusters} by {rows.clustered_by} are worth"
        clusters = int(effective_clusters(ctx.spec, rows))
    wants = [("rows", rows.rows, FEWEST_ROWS), (units, clusters, FEWEST_CLUSTERS)]
    if ctx.spec.label.task == "binary":
        wants.append(("positives", rows.positives, FEWEST_POSITIVES))
        wants.append(("negatives", rows.rows - rows.positives, FEWEST_POSITIVES))
    few = [f"{have} {what} (at least {need})" for what, have, need in wants if have < need]
    have_all = ", ".join(f"{have} {what}" for what, have, _ in wants)
    if few:
        step = "Lengthen training.holdout_days or train as of a later day."
        if ctx.recovery is not None:
            step = "The trainings that follow for this drift hold out more days."
        why = f"Too little to judge by: {', '.join(few)}. {ctx.unfair or step}"
        return Check("evidence", False, rows.rows, FEWEST_ROWS, why)
    return Check("evidence", True, rows.rows, FEWEST_ROWS, f"Judged on {have_all}. {ctx.unfair}".rstrip())


def is_another_model(ctx: GateContext) -> Check:
    """Challenger and champion are two models: comparing one with itself would always pass."""
    if ctx.champion is None:
        return Check("another_model", True, ctx.info.version, None, "There is no champion yet.")
    same = any(
        each is not None and (each.version == ctx.info.version or each.model_hash == ctx.info.model_hash)
        for each in (ctx.champion, ctx.reference)
    )
    why = (
        f"Version {ctx.info.version} is the champion itself (version {ctx.champion.version}, equal files): "
        "there is nothing to promote."
        if same
        else f"Version {ctx.info.version} and champion {ctx.champion.version} are different artifacts."
    )
    return Check("another_model", not same, ctx.info.version, ctx.champion.version, why)


def floors(ctx: GateContext) -> Iterator[Check]:
    """Each metric reaches its floor (or stays below its ceiling, where lower is better); of a recovery it only says so.

    A few days of a new regime say little of a level, and a model below it may be far above the champion.
    """
    for metric, floor in ctx.spec.gate.floors.items():
        if ctx.recovery is not None:
            why = "its few days decide nothing by themselves: after a drift the comparison with the champion does."
            value = ctx.metrics.get(metric)
            shown = "cannot be computed" if value is None else f"is {value:.4f}"
            yield Check(f"floor_{metric}", value is not None, value, floor, f"{metric} {shown}; {why}")
            continue
        word = "at most" if metric in LOWER_IS_BETTER else "at least"
        yield _metric_check(ctx, "floor", metric, floor, sign=1, why=(f"; it must be {word} {floor:g}.",) * 2)


def not_suspicious(ctx: GateContext) -> Iterator[Check]:
    """No metric is better than honest data allows: that is how a leak looks."""
    for metric, limit in ctx.spec.gate.suspicious.items():
        leak = f", better than {limit:g}: too good to be true. Look for a feature that knows the label."
        yield _metric_check(ctx, "suspicious", metric, limit, sign=-1, why=(f", not better than {limit:g}.", leak))


def better_than_trivial(ctx: GateContext) -> Check:
    """It beats a model that gives every row the holdout's own mean."""
    mean = float(ctx.rows.label.mean())
    found = compare(ctx.spec, ctx.rows, ctx.judged_scores, np.full(ctx.rows.rows, mean), margin=0.0)
    why = (
        f"{found.metric} {found.candidate:.4f} against {found.reference:.4f} of a model that always says "
        f"{mean:.4g}; the advantage is at least {found.lower:.4f} with confidence {found.confidence:g} "
        f"({found.resampled_by})."
    )
    return Check("better_than_trivial", found.lower > 0, found.lower, 0.0, why)


def not_worse_than_champion(ctx: GateContext) -> Check:
    """Paired bootstrap on the same rows: not worse than the champion by more than the margin."""
    if ctx.champion is None:
        why = "There is no champion yet: the floors and the trivial model decide."
        return Check("not_worse_than_champion", True, None, None, why)
    if ctx.recovery is not None:
        return proven_better(ctx, ctx.champion.version)
    if ctx.unfair and not enough_evidence(ctx).passed:
        return Check("not_worse_than_champion", False, None, None, _NOT_COMPARED)
    found = compare(ctx.spec, ctx.fair_rows, ctx.fair_scores, ctx.champion_scores, margin=ctx.spec.gate.margin)
    ctx.comparison = found
    bound = f"at least {found.lower:.4f} better" if found.lower >= 0 else f"at most {-found.lower:.4f} worse"
    why = (
        f"{found.metric} {found.candidate:.4f} against {found.reference:.4f} of {ctx.named_champion} on the "
        f"same {ctx.fair_rows.rows} rows; with confidence {found.confidence:g} it is {bound} "
        f"({found.resampled_by}); {found.margin:g} worse is acceptable."
    )
    return Check("not_worse_than_champion", found.passed, found.lower, -found.margin, why)


def proven_better(ctx: GateContext, champion: str) -> Check:
    """After a drift: the same comparison proves it better than the champion, at the level of this look."""
    spec, scores = ctx.spec, ctx.champion_scores
    for required in (enough_evidence, is_another_model):
        if not (found := required(ctx)).passed:
            return Check("proven_better", False, None, 0.0, f"Not compared, so nothing is spent. {found.why}")
    subject = {"version": ctx.info.version, "model_hash": ctx.info.model_hash, "champion": champion}
    request = str(ctx.lineage.get("request") or f"by hand@{ctx.recovery}")
    rate, most = spec.gate.recovery_error_rate, spec.retraining.recovery_trainings
    look = take_look(ctx.store, spec.name, {"request": request, **subject}, error_rate=rate, most=most)
    if look is None:
        why = f"The error rate of all looks at one champion, {rate:g}, is spent: a usual training has to follow."
        return Check("proven_better", False, None, 0.0, f"Not compared. {why}")
    ctx.look = look
    compared = compare(spec, ctx.fair_rows, ctx.fair_scores, scores, margin=0.0, confidence=1 - look.level)
    ctx.comparison = compared
    passed = compared.lower > 0 and compared.advantage >= spec.gate.margin
    why = (
        f"{compared.metric} {compared.candidate:.4f} against {compared.reference:.4f} of {ctx.named_champion} on the "
        f"same {ctx.fair_rows.rows} rows; with confidence {compared.confidence:g} its advantage is at least "
        f"{compared.lower:.4f} ({compared.resampled_by}). That must be above 0, and the "
        f"advantage as it is {spec.gate.margin:g} or more. {look.sentence()}"
    )
    return Check("proven_better", passed, compared.lower, 0.0, why)


def tells_a_planted_worse_model(ctx: GateContext) -> Check:
    """The same comparison rejects a model that is known to be worse: else its verdicts mean nothing."""
    gate, rows = ctx.spec.gate, ctx.fair_rows
    if ctx.unfair and not enough_evidence(ctx).passed:
        return Check("self_test", False, None, None, _NOT_COMPARED)
    reference, whose = ctx.fair_scores, f"challenger {ctx.info.version}"
    if ctx.champion is not None:
        # A champion that is no better than chance on these rows has nothing left to lose.
        trivial = np.full(rows.rows, rows.label.mean())
        if compare(ctx.spec, rows, ctx.champion_scores, trivial, margin=0.0).advantage > gate.margin:
            reference, whose = ctx.champion_scores, ctx.named_champion
    planted = planted_worse(reference, share=PLANTED_SHARE, seed=ctx.spec.training.seed)
    found = compare(ctx.spec, rows, planted, reference, margin=gate.margin)
    why = f"A worse copy of {whose} ({found.metric} {found.candidate:.4f} instead of {found.reference:.4f}) was " + (
        "rejected by the same comparison."
        if not found.passed
        else f"let through: with margin {gate.margin:g} these rows cannot tell a bad model from a good one. "
        "Narrow gate.margin or lengthen training.holdout_days."
    )
    return Check("self_test", not found.passed, found.lower, -found.margin, why)


ALL = (
    artifact_is_safe,
    rows_are_frozen,
    reproduces_its_scores,
    finite_predictions,
    enough_evidence,
    is_another_model,
    floors,
    not_suspicious,
    better_than_trivial,
    not_worse_than_champion,
    tells_a_planted_worse_model,
)
"""Every check, in the order in which they are run and shown."""


def _metric_check(ctx: GateContext, kind: str, metric: str, limit: float, *, sign: int, why: tuple[str, str]) -> Check:
    """Ask for a metric at least as good as a limit (``sign`` 1) or no better (-1); ``why`` if passed, and if not."""
    name, value = f"{kind}_{metric}", ctx.metrics.get(metric)
    if value is None:
        return Check(name, False, None, limit, f"{metric} cannot be computed on this holdout.")
    passed = sign * signed(metric) * (value - limit) >= 0
    return Check(name, passed, value, limit, f"{metric} is {value:.4f}{why[0] if passed else why[1]}")
