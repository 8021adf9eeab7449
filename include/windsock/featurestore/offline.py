"""Windsock's offline store behind Feast's API (``offline_store`` in ``feature_store.yaml``).

Feast's embedded offline stores join every earlier row and then sort out duplicates, which
takes minutes and loses rows. This one does a real point-in-time join (see ``retrieval``): every
row kept, in order, ttl honoured, NULL where nothing was known.

Inside ``with pinned(...)`` it reads exact versions of days, else those in force now.
"""

from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, NoReturn

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from windsock.column_types import to_pandas
from windsock.errors import SpecError
from windsock.featurestore.reading import entity_rows, entity_rows_between, open_source, pull, source_of, time_column
from windsock.featurestore.retrieval import History, join_point_in_time, time_range, utc_micros
from windsock.store import Store


@dataclass
class WindsockRetrievalJob(RetrievalJob):
    """A retrieval that runs when its result is asked for: Arrow first, pandas on demand."""

    run: Callable[[], pa.Table]
    full_feature_names: bool = False
    on_demand_feature_views: Any = ()
    metadata: RetrievalMetadata | None = None
    pins: Context = field(default_factory=copy_context)
    """Those of the moment of asking: a job may run after the ``with pinned`` block has ended."""

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.pins.copy().run(self.run)

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """Return a pandas frame; whole numbers with gaps are ``Int64``, not floats."""
        return to_pandas(self.to_arrow(validation_reference, timeout))

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to a Parquet file (``SavedDatasetFileStorage``).

        Raises:
            SpecError: Another kind of storage was given.
            SavedDatasetLocationAlreadyExists: The file exists and may not be replaced.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise SpecError(
                f"A data set cannot be saved to {type(storage).__name__}: this offline store writes Parquet files. "
                "Use feast.infra.offline_stores.file_source.SavedDatasetFileStorage."
            )
        target = Store(storage.file_options.uri)
        if target.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=storage.file_options.uri)
        sink = pa.BufferOutputStream()
        pq.write_table(self.to_arrow(), sink)
        target.write_bytes(sink.getvalue().to_pybytes())


class WindsockOfflineStoreConfig(FeastConfigBaseModel):
    """Settings of Windsock's offline store."""

    type: Literal["windsock.featurestore.offline.WindsockOfflineStore"] = (
        "windsock.featurestore.offline.WindsockOfflineStore"
    )
    store: str = ""
    """URL or folder of the tables; default ``WINDSOCK_STORE``."""


class WindsockOfflineStore(OfflineStore):
    """Point-in-time retrieval over Windsock's tables (and over Feast's ``FileSource``)."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **window: datetime | None,
    ) -> RetrievalJob:
        """Join features to entity rows, as they were known at each row's time.

        ``entity_df`` holds entity rows as pandas or Arrow, or is SQL over a model's ``events`` and ``labels``;
        without it, all entity rows from ``start_date`` to ``end_date`` are meant.
        """
        if entity_df is None:
            frame = entity_rows_between(config, feature_views, window.get("start_date"), window.get("end_date"))
        else:
            frame = entity_rows(config, feature_views, entity_df)
        timestamp = time_column(frame)
        times = utc_micros(frame[timestamp])
        span = time_range(times)

        def run() -> pa.Table:
            histories = [_history(config, v, feature_refs, full_feature_names, span) for v in feature_views]
            return join_point_in_time(frame, times, [h for h in histories if h.features])

        return WindsockRetrievalJob(
            run,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[c for c in frame.column_names if c != timestamp],
                min_event_timestamp=span[0] if span else None,
                max_event_timestamp=span[1] if span else None,
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Return each entity's latest row in ``[start_date, end_date]``; see :func:`pull` for the arguments."""
        return WindsockRetrievalJob(partial(pull, *args, **kwargs, latest=True))

    @staticmethod
    def pull_all_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Return every row in ``[start_date, end_date]``, in order of time; see :func:`pull` for the arguments."""
        return WindsockRetrievalJob(partial(pull, *args, **kwargs))

    @staticmethod
    def offline_write_batch(config: RepoConfig, feature_view: FeatureView, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: feature tables are made by the ``features`` step alone.

        Raises:
            SpecError: Always.
        """
        raise SpecError(
            f"{feature_view.name}: Windsock's feature tables are computed from the events by the model's SQL and "
            "cannot be written by hand. Ingest the events, or push to the online store only (PushMode.ONLINE)."
        )

    @staticmethod
    def write_logged_features(*args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: served features are kept with the predictions.

        Raises:
            SpecError: Always.
        """
        raise SpecError(
            "Windsock's offline store keeps no log of served features: they follow from the model version and the "
            "feature tables' pins that every prediction names. Remove logging_config from the feature service."
        )


def _history(
    config: RepoConfig,
    view: FeatureView,
    references: list[str],
    full_feature_names: bool,
    span: tuple[datetime, datetime] | None,
) -> History:
    source = source_of(view)
    called: str = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    wanted = dict.fromkeys(ref.split(":", 1)[1] for ref in references if ref.split(":", 1)[0] == called)
    prefix = view.projection.name_alias or view.name
    back = {new: old for old, new in source.field_mapping.items()}
    names = {back.get(f, f): f"{prefix}__{f}" if full_feature_names else f for f in wanted}
    renamed = view.projection.join_key_map or {}
    keys = {back.get(c.name, c.name): renamed.get(c.name, c.name) for c in view.entity_columns}
    keys.pop(DUMMY_ENTITY_ID, None)
    ttl = view.ttl if view.ttl and view.ttl > timedelta(0) else None
    first, last = span or (datetime.max, datetime.min)  # rows without any time need no day at all
    rows = open_source(config, source, first - ttl if ttl is not None else None, last)
    return History(called, rows, source.timestamp_field, keys, names, rows.schema, ttl)
