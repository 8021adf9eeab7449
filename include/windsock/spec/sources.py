"""The part of a spec that says where days come from: files, a query, or the simulator."""

import re
from datetime import date
from types import MappingProxyType
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from windsock.errors import did_you_mean
from windsock.spec.base import Part, unless_default

_DAY = MappingProxyType({"{ds}": "%Y-%m-%d", "{ds_nodash}": "%Y%m%d"})
"""What stands for the day in a URL, and how the day is written there."""
_OTHER_PATTERNS = re.compile(r"\$?\{[^}]*\}*|\}+|\*|%Y|YYYY|yyyy")


def has_day(url: str) -> bool:
    """Say whether a URL names another place every day."""
    return any(name in url for name in _DAY)


def url_of_day(url: str, day: date) -> str:
    """Return the URL of one day."""
    for name, form in _DAY.items():
        url = url.replace(name, day.strftime(form))
    return url


def _without_other_patterns(url: str) -> str:
    """Refuse what would be taken for part of a file's name: nobody would be told why the file does not come."""
    bare = re.sub("|".join(rf"(?<![{{$]){re.escape(name)}(?!\}})" for name in _DAY), "", url)
    if found := _OTHER_PATTERNS.search(bare):
        raise ValueError(
            f"{found.group()!r} stands for nothing here: write {{ds}} for the day as 2026-03-01, {{ds_nodash}} for "
            "20260301, and no other pattern"
        )
    return url


def with_a_day(url: str) -> str:
    """Return a URL that names another place every day, or raise ValueError."""
    if not has_day(url):
        raise ValueError("names the same file every day: write {ds} (2026-03-01) or {ds_nodash} (20260301) for the day")
    return url


Url = Annotated[str, AfterValidator(_without_other_patterns)]
"""An fsspec URL or a path, with or without the day."""
MarkName = Annotated[str, StringConstraints(pattern=r"^[^/\\]+$"), AfterValidator(_without_other_patterns)]
"""A file's name, with or without the day."""


_NO_PLACES = ("posix/", "right/", "posixrules", "localtime", "Factory")
"""How names begin that a machine may know and that are no zone of the database: they differ between machines."""


def _known_zone(name: str) -> str:
    try:
        if name.startswith(_NO_PLACES):
            raise ValueError(name)
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # the last: a folder of that name
        near = did_you_mean(name, available_timezones())
        raise ValueError(f"there is no time zone {name!r}.{near} Write one such as Europe/Berlin") from None


Zone = Annotated[str, AfterValidator(_known_zone)]
"""A time zone by its name in the IANA database."""


class DeliveredFiles(Part):
    """Where files lie, how they are written, and what says that they are whole."""

    url: Url
    format: Literal["parquet", "csv"] | None = Field(None, description="Default: by the file's ending.")
    mark: MarkName | None = unless_default(
        None, description="File that says that the delivery beside it, or the folder, is whole; a folder's: `_SUCCESS`."
    )
    quiet_seconds: NonNegativeInt | None = unless_default(
        None,
        description="Seconds without a change after which a file counts as whole. Default: 0; 60 for one big file as "
        "long as no later event, no mark and no last_day say that the day is over.",
    )
    timezone: Zone | None = unless_default(
        None, description="Time zone whose days the files are cut by, say Europe/Berlin; default: UTC (docs/models.md)."
    )
    naive_times: Literal["local", "utc"] = unless_default(
        "local", description="Whether times without a zone in them are of `timezone` or, all the same, of UTC."
    )
    deliveries: Literal["replace", "append"] = unless_default(
        "replace", description="What a further delivery of a day does with what was delivered of it before."
    )

    @property
    def zone_of_times(self) -> str | None:
        """The zone of times that do not say theirs; None: UTC."""
        return self.timezone if self.naive_times == "local" else None


class FilesSource(DeliveredFiles):
    """Files at a URL: a file or a folder of part files a day, or one big file that is cut by event time."""

    kind: Literal["files"]
    url: Url = Field(
        description="Any fsspec URL or path; `{ds}` stands for the day, `{ds_nodash}` too. Without: one big file."
    )

    @model_validator(mode="after")
    def _appends_to_days(self) -> Self:
        if self.deliveries == "append" and not has_day(self.url):
            raise ValueError(
                "deliveries: append is for a file or folder a day. Write {ds} in the url, or remove it: one big file "
                "is read as it grows"
            )
        return self


class SqlSource(Part):
    """A query against a database, run once a day."""

    kind: Literal["sql"]
    url_env: str = Field(description="Environment variable that holds the SQLAlchemy URL (it may carry a password).")
    query: str = Field(description="SQL with :start and :end, the day's first instant and the next day's.")

    @model_validator(mode="after")
    def _asks_for_one_day(self) -> Self:
        if missing := [name for name in (":start", ":end") if name not in self.query]:
            raise ValueError(f"the query does not use {' and '.join(missing)}: every run would read all days")
        return self


class Drift(Part):
    """A change that the simulator makes from a given day on."""

    kind: Literal["amounts", "fraud_pattern", "terminal_mix"]
    from_day: date
    size: float = Field(2.0, gt=0, description="Strength: a factor on amounts, on the pattern's rate or on the mix.")


class Dirt(Part):
    """One day that the simulator delivers broken, to show what validation catches."""

    day: date
    kind: Literal[
        "missing_column",
        "amount_as_text",
        "null_keys",
        "duplicate_rows",
        "outside_day",
        "negative_amounts",
        "half_day",
        "amount_in_cents",
        "zero_rows",
        "extra_columns",
    ]


class SimulatorSource(Part):
    """Card transactions of the fraud handbook's process; any day directly from seed and day."""

    kind: Literal["simulator"]
    seed: int = 0
    customers: PositiveInt = 5000
    terminals: PositiveInt = 10000
    drift: tuple[Drift, ...] = ()
    dirt: tuple[Dirt, ...] = ()


Source = Annotated[FilesSource | SqlSource | SimulatorSource, Field(discriminator="kind")]
