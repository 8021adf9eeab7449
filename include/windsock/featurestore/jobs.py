"""What Feast hands to the user of a historical retrieval: Arrow first, pandas on demand."""

from collections.abc import Callable

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import OnDemandFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from windsock.column_types import to_pandas
from windsock.errors import SpecError
from windsock.store import Store


class WindsockRetrievalJob(RetrievalJob):
    """A retrieval that runs when its result is asked for."""

    def __init__(
        self,
        run: Callable[[], pa.Table],
        *,
        full_feature_names: bool = False,
        on_demand: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._run = run
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features carry their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._run()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return to_pandas(self._run())

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
        fs, path = fsspec.core.url_to_fs(storage.file_options.uri)
        if fs.exists(path) and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=storage.file_options.uri)
        sink = pa.BufferOutputStream()
        pq.write_table(self.to_arrow(), sink)
        Store(storage.file_options.uri).write_bytes(sink.getvalue().to_pybytes())
