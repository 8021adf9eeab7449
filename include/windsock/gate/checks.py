"""What a challenger must show, one function per check.

Every check returns its value, what it was held against and a sentence. A check that
cannot be run has failed (see ``judge``): nothing passes for want of evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windsock.gate.case import Case
from windsock.gate.compare import Comparison, compare, planted_worse, signed
from windsock.spec.modelling import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

FEWEST_ROWS = 100
FEWEST_POSITIVES = 20
FEWEST_CLUSTERS = 10
PLANTED_SHARE = 0.5
"""Share of rows whose scores the planted worse model has dealt out anew."""

_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")


@dataclass(frozen=True)
class Check:
    """One finding of the gate."""

    name: str
    passed: bool
    value: float | str | None
    threshold: float | str | None
    why: str


def artifact_is_safe(case: Case) -> Check:
    """The model folder is the one registered, holds no pickle and loads."""
    files = case.model_files()
    pickles = [f for f in files if f.endswith(_PICKLES)]
    if pickles:
        return Check("artifact", False, ", ".join(pickles), "no pickle", "Loading a pickle can run any code.")
    if case.info.model_hash != case.model_hash():
        why = f"The files in {case.info.run_folder}/model are not those that were registered as {case.info.version}."
        return Check("artifact", False, case.model_hash()[:12], case.info.model_hash[:12], why)
    _ = case.model
    return Check(
        "artifact", True, case.model_hash()[:12], "no pickle", f"{len(files)} plain files, as registered, and it loads."
    )


def rows_are_frozen(case: Case) -> Check:
    """The holdout is the very file that was frozen before training."""
    now, then = case.frozen_hashes()
    passed = now == then
    why = (
        f"The {case.holdout.num_rows} held-out rows are byte for byte those frozen before training."
        if passed
        else "The held-out rows are not those that were frozen before training: somebody changed the file."
    )
    return Check("frozen_rows", passed, now[:12], then[:12] if then else None, why)


def reproduces_its_scores(case: Case) -> Check:
    """The loaded model gives the scores that its training recorded."""
    import numpy as np

    recorded = case.recorded_scores()
    if len(recorded) != len(case.scores):
        why = f"Training recorded {len(recorded)} scores for {len(case.scores)} holdout rows."
        return Check("same_predictions", False, len(recorded), len(case.scores), why)
    off = float(np.max(np.abs(recorded - case.scores), initial=0.0))
    limit = 1e-9 * max(1.0, float(np.max(np.abs(recorded), initial=0.0)))
    passed = off <= limit
    found = "gives" if passed else "does not give"
    why = f"The artifact, loaded afresh, {found} the {len(recorded)} scores that training recorded."
    return Check("same_predictions", passed, off, limit, why)


def finite_predictions(case: Case) -> Check:
    """Every score is a number."""
    import numpy as np

    bad = int((~np.isfinite(case.scores)).sum())
    why = f"{bad} of {len(case.scores)} scores are NaN or infinite."
    return Check("finite", bad == 0, bad, 0, why)


def enough_evidence(case: Case) -> Check:
    """The holdout is large enough to judge anything."""
    rows = case.rows
    wants = [("rows", rows.rows, FEWEST_ROWS), (f"clusters by {rows.clustered_by}", rows.clusters, FEWEST_CLUSTERS)]
    if case.spec.label.task == "binary":
        wants.append(("positives", rows.positives, FEWEST_POSITIVES))
        wants.append(("negatives", rows.rows - rows.positives, FEWEST_POSITIVES))
    few = [f"{have} {what} (at least {need})" for what, have, need in wants if have < need]
    have_all = ", ".join(f"{have} {what}" for what, have, _ in wants)
    if few:
        why = f"Too little to judge by: {', '.join(few)}. Lengthen training.holdout_days or train as of a later day."
        return Check("evidence", False, rows.rows, FEWEST_ROWS, why)
    return Check("evidence", True, rows.rows, FEWEST_ROWS, f"Judged on {have_all}.")


def is_another_model(case: Case) -> Check:
    """Challenger and champion are two models: comparing one with itself would always pass."""
    if case.champion is None:
        return Check("another_model", True, case.info.version, None, "There is no champion yet.")
    same = case.champion.version == case.info.version or case.champion.model_hash == case.info.model_hash
    why = (
        f"Version {case.info.version} is the champion itself (version {case.champion.version}, equal files): "
        "there is nothing to promote."
        if same
        else f"Version {case.info.version} and champion {case.champion.version} are different artifacts."
    )
    return Check("another_model", not same, case.info.version, case.champion.version, why)


def floors(case: Case) -> Iterator[Check]:
    """Each metric reaches its floor (or stays below its ceiling, where lower is better)."""
    for metric, floor in case.spec.gate.floors.items():
        value = case.metric(metric)
        word = "at most" if metric in LOWER_IS_BETTER else "at least"
        if value is None:
            yield Check(f"floor_{metric}", False, None, floor, f"{metric} cannot be computed on this holdout.")
            continue
        passed = signed(metric) * (value - floor) >= 0
        yield Check(f"floor_{metric}", passed, value, floor, f"{metric} is {value:.4f}; it must be {word} {floor:g}.")


def not_suspicious(case: Case) -> Iterator[Check]:
    """No metric is better than honest data allows: that is how a leak looks."""
    for metric, limit in case.spec.gate.suspicious.items():
        value = case.metric(metric)
        if value is None:
            yield Check(f"suspicious_{metric}", False, None, limit, f"{metric} cannot be computed on this holdout.")
            continue
        passed = signed(metric) * (value - limit) <= 0
        why = f"{metric} is {value:.4f}, " + (
            f"not better than {limit:g}."
            if passed
            else f"better than {limit:g}: too good to be true. Look for a feature that knows the label."
        )
        yield Check(f"suspicious_{metric}", passed, value, limit, why)


def better_than_trivial(case: Case) -> Check:
    """It beats a model that gives every row the holdout's own mean."""
    import numpy as np

    mean = float(case.rows.label.mean())
    found = _compare(case, case.judged_scores, np.full(case.rows.rows, mean), margin=0.0)
    why = (
        f"{found.metric} {found.candidate:.4f} against {found.reference:.4f} of a model that always says "
        f"{mean:.4g}; the advantage is at least {found.lower:.4f} with confidence {found.confidence:g}."
    )
    return Check("better_than_trivial", found.lower > 0, found.lower, 0.0, why)


def not_worse_than_champion(case: Case) -> Check:
    """Paired bootstrap on the same rows: not worse than the champion by more than the margin."""
    if case.champion is None:
        why = "There is no champion yet: the floors and the trivial model decide."
        return Check("not_worse_than_champion", True, None, None, why)
    found = _compare(case, case.judged_scores, case.champion_scores, margin=case.spec.gate.margin)
    case.comparison = found
    return Check("not_worse_than_champion", found.passed, found.lower, -found.margin, _told(case, found))


def tells_a_planted_worse_model(case: Case) -> Check:
    """The same comparison rejects a model that is known to be worse: else its verdicts mean nothing."""
    gate = case.spec.gate
    reference, whose = case.judged_scores, f"challenger {case.info.version}"
    if case.champion is not None:
        # A champion that is no better than chance on these rows has nothing left to lose.
        baseline = _compare(case, case.champion_scores, case.judged_scores * 0 + case.rows.label.mean(), margin=0.0)
        if baseline.advantage > gate.margin:
            reference, whose = case.champion_scores, f"champion {case.champion.version}"
    planted = planted_worse(reference, share=PLANTED_SHARE, seed=case.spec.training.seed)
    found = _compare(case, planted, reference, margin=gate.margin)
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


def _compare(case: Case, candidate: Vector, reference: Vector, *, margin: float) -> Comparison:
    spec = case.spec
    found = compare(
        case.rows,
        candidate,
        reference,
        metric=spec.training.metric,
        margin=margin,
        confidence=spec.gate.confidence,
        resamples=spec.gate.resamples,
        seed=spec.training.seed,
        k=spec.training.evaluation.alerts_per_day,
    )
    if not math.isfinite(found.lower):
        raise ValueError(f"{found.metric} cannot be computed on these rows")
    return found


def _told(case: Case, found: Comparison) -> str:
    version = case.champion.version if case.champion is not None else "?"
    return (
        f"{found.metric} {found.candidate:.4f} against {found.reference:.4f} of champion {version} on the same "
        f"{case.rows.rows} rows; with confidence {found.confidence:g} it is {_bound(found)} (resampled by "
        f"{found.clustered_by}, {found.clusters} of them); {found.margin:g} worse is acceptable."
    )


def _bound(found: Comparison) -> str:
    if found.lower >= 0:
        return f"at least {found.lower:.4f} better"
    return f"at most {-found.lower:.4f} worse"


def as_json(check: Check) -> dict[str, Any]:
    """Return a check as plain JSON types, without NaN."""
    value = check.value
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    return {
        "name": check.name,
        "passed": bool(check.passed),
        "value": value,
        "threshold": check.threshold,
        "why": check.why,
    }
