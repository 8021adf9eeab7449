"""The ``score`` step: one day's predictions by the model that was in force on that day.

Options: ``model_version`` scores with that version instead of the champion; ``rescore`` scores again although the day's
events have not changed. Without either, predictions once made stay: they are what was decided then, also if features of
the day have been computed anew since.
"""

import logging
from collections.abc import Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from windsock import tables
from windsock.dataset.feature_join import join_features
from windsock.errors import NotReady
from windsock.features.feature_tables import FeatureTable, feature_tables, settled_features
from windsock.features.frame import event_frame
from windsock.features.frozen import require_columns, spec_of_version
from windsock.featurestore.retrieval import point_in_time
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import CHOSEN_BY, champion_of, verified_history
from windsock.registry.versions import load_version
from windsock.scoring.frozen_rows import check_frozen_rows
from windsock.served.metrics import SCORE, TIME
from windsock.spec import ModelSpec
from windsock.steps import StepContext

log = logging.getLogger(__name__)

PREDICTIONS = "predictions"


def run(ctx: StepContext) -> dict[str, Any]:
    """Score ``ctx.day``.

    Returns:
        ``status``, ``rows``, ``model_version`` (or None) and ``kept`` (whether earlier predictions stay).

    Raises:
        NotReady: The day has not been ingested, its features are missing, or those of an older day that it needs.
        SpecError: ``model_version`` names no version.
        DataContractError: The model needs a feature that is not there any more, its files were changed, or a record is
            damaged (that of the day itself is mended by ``rescore``).
    """
    day, spec = ctx.day, ctx.spec
    events = _needed(ctx, "ingest", day)
    ledger = Ledger.of(ctx.settings, spec.name, "score")
    rescore = bool(ctx.options.get("rescore"))
    current = ledger.get_if_whole(day) if rescore else ledger.get(day)
    asked = str(ctx.options.get("model_version") or "")
    # Names the rows that are scored; labels and quarantine of the day do not matter.
    scored = events.outputs["events"].hash if "events" in events.outputs else None
    if current is not None and _stays(current, scored, asked, rescore):
        log.info("%s %s: predictions by version %s stay", spec.name, day, current.detail.get("model_version"))
        return _result(current, kept=True)
    inputs = {f"ingest/{day}": events.data_hash}
    if events.rows("events") == 0:
        record = DayRecord(str(day), "rejected" if events.status == "rejected" else "empty", inputs=inputs)
    elif version := asked or ((entry := champion_of(verified_history(ctx.settings, spec), day)) and entry.version):
        # By its own definitions, whatever the spec says by now.
        own = spec_of_version(ctx.settings, spec, version)
        require_columns(ctx.store, own, events, f"version {version}")
        features = {table.name: _features(ctx, table, day) for table in feature_tables(own)}
        inputs |= {f"{name}/{day}": record.data_hash for name, record in features.items()}
        table = _predict(ctx, own, version, events, features)
        scores = table[SCORE].to_numpy()
        detail = {
            "events": scored,
            "model_version": version,
            "chosen_by": "option model_version" if asked else CHOSEN_BY,
            "rows": table.num_rows,
            "mean_score": float(scores.mean()),
        }
        if (threshold := spec.serving.threshold) is not None:
            detail["at_or_above_threshold"] = int((scores >= threshold).sum())
        output = tables.write_day(ctx.store, spec.name, PREDICTIONS, day, table, previous=current)
        record = DayRecord(str(day), "published", {PREDICTIONS: output}, {**inputs, "model": version}, detail)
    else:
        log.info("%s %s: no model was in force on that day, so nothing is scored", spec.name, day)
        record = DayRecord(str(day), "no_champion", inputs=inputs, detail={"events": scored})
    return _result(ledger.publish(record, origin=ctx.origin), kept=False)


def _needed(ctx: StepContext, stage: str, day: date) -> DayRecord:
    record = Ledger.of(ctx.settings, ctx.spec.name, stage).get(day)
    if record is None:
        raise NotReady(
            f"{ctx.spec.name}: {day} cannot be scored, its step '{stage}' has not been run. "
            f"Run {ctx.spec.name}_{stage} for this day (a backfill of {ctx.spec.name}_ingest carries the whole chain)."
        )
    return record


def _stays(current: DayRecord, events: str | None, asked: str, rescore: bool) -> bool:
    """Say whether a day's predictions are kept: its own events are the same, and nobody asks for others."""
    if rescore or current.status != "published" or current.detail.get("events") != events:
        return False
    return asked in ("", current.detail.get("model_version"))


def _features(ctx: StepContext, table: FeatureTable, day: date) -> DayRecord:
    """Return the day's record of a table.

    Raises:
        NotReady: There is none.
    """
    if (record := table.ledger(ctx.store).get(day)) is None:
        raise NotReady(
            f"{table.model}: {day} cannot be scored, its {table.name} have not been computed. Run "
            f"{table.model}_features for this day (a backfill of {table.model}_ingest carries the whole chain)."
        )
    return record


def _predict(
    ctx: StepContext, spec: ModelSpec, version: str, events: DayRecord, features: Mapping[str, DayRecord]
) -> pa.Table:
    model, day = load_version(ctx.settings, spec, version), events.day
    check_frozen_rows(ctx, spec, version, model)

    def join(rows: pa.Table, first: date) -> pa.Table:
        # Rows that take features from older days wait for all of those: else scores would depend on the order of days.
        older = settled_features(ctx.settings, spec, first, day) if first < day else {}
        records = {name: {**older.get(name, {}), day: record} for name, record in features.items()}
        return point_in_time(ctx.store, spec, rows, records)

    frame = join_features(spec, event_frame(ctx.store, spec, [events], for_champion=True), day, join)
    return pa.table(
        {
            spec.events.key: frame[spec.events.key],
            "event_time": frame[TIME],
            SCORE: pa.array(model.predict(frame), pa.float64()),
            "model_version": pa.array([version] * frame.num_rows, pa.string()),
        }
    )


def _result(record: DayRecord, *, kept: bool) -> dict[str, Any]:
    return {
        "status": record.status,
        "rows": record.rows(PREDICTIONS),
        "model_version": record.detail.get("model_version"),
        "kept": kept,
    }
