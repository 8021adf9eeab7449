"""What ``windsock doctor`` asks of services, wherever they run: do they answer, and do they keep their promises?

It writes to each one thing of its own and takes it away again. Nothing is left where there was nothing before.
"""

import contextlib
import sqlite3
import time
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

from windsock import __version__
from windsock.days import utc_now
from windsock.errors import SpecError
from windsock.faults import fault_behind
from windsock.featurestore.repo import embedded_online_path, import_feast, raw_config
from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock.store import Store
from windsock_local.stack import parts, probes
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.airflow_session import QUICKLY, AirflowRefused, how_to_find_airflow
from windsock_local.stack.day_checks import Findings
from windsock_local.stack.home import read_stack

_MOST_SKEW_S = 10
"""Keys and tokens are taken for as long after their time (``mlflow_keys``, Airflow's ``jwt_leeway``)."""
_ONE_CLOCK = "Set the clocks of both machines by NTP."


def prepare(settings: Settings) -> None:
    """Import what the checks need, which takes seconds that say nothing of a service."""
    if "://" in settings.store:
        with contextlib.suppress(Exception):  # the check of the store says why
            _ = Store(settings.store).fs
    with contextlib.suppress(SpecError):  # the check of the online store says why
        if embedded_online_path(settings) is None:
            import_feast()
            import windsock.featurestore.redis_server  # noqa: F401


def check_store(settings: Settings) -> Findings:
    """Create, replace, read, list and remove an object, and create it where there is one already."""
    Store.of(settings).look()  # is it this installation's?
    root, where = Store(settings.store.rstrip("/")), redact(settings.store)
    if root.is_local and not Path(root.url()).is_dir():
        yield "ok", f"none yet in {where}: the first step makes it"
        return
    name, well = f"doctor-{uuid.uuid4().hex}.json", True
    asked = utc_now()
    try:
        root.create_bytes(b"1", name)
        written = root.fs.modified(root.path(name))
        root.write_bytes(b"2", name)
        with contextlib.suppress(FileExistsError):
            root.create_bytes(b"3", name)
            well = False
            yield (
                "problem",
                f"{where} overwrites what it was told to create: of two promotions at once both would win",
                "Use an object store that knows PUT with If-None-Match (docs/deploy.md).",
            )
        if well and (found := root.read_bytes(name)) != b"2":
            well = False
            yield "problem", f"{where} gives back {found!r} for what was replaced by b'2'", "Use another object store."
        if name.removesuffix(".json") not in root.json_names():
            well = False
            yield "problem", f"{where} does not list what was just written", "Use another object store."
        root.remove(name)
        if root.exists(name):
            well = False
            yield "problem", f"{where} still has what was removed", "Use another object store."
    except Exception as err:  # every kind of store has errors of its own
        with contextlib.suppress(Exception):
            root.remove(name)
        if (fault := fault_behind(err)) is None:
            raise
        raise fault from err
    skew = list(of_clock(where, written.replace(tzinfo=written.tzinfo or UTC), asked))
    yield from skew
    if well and not skew:
        yield "ok", f"{where} creates, replaces, reads, lists and removes"


def of_clock(where: str, there: datetime, asked: datetime) -> Findings:
    """Compare a time that was given to an answer with those between which it was asked for."""
    ahead, behind = (there - utc_now()).total_seconds(), (asked - there).total_seconds()
    if ahead > _MOST_SKEW_S:
        yield "problem", f"the clock of {where} is {ahead:.0f} s ahead of this machine's", _ONE_CLOCK
    elif behind > _MOST_SKEW_S:
        yield "problem", f"the clock of {where} is {behind:.0f} s behind this machine's", _ONE_CLOCK


def check_airflow(settings: Settings) -> Findings:
    """Log in; ask for heartbeats, versions, DAG files that cannot be read, and the time."""
    if not settings.elsewhere and read_stack(settings) is None:
        yield "ok", "no stack runs here"
        return
    if not settings.airflow_url and read_stack(settings) is None:
        yield "problem", "it is not known where Airflow is", how_to_find_airflow(settings)
        return
    well = True
    with AirflowApi.of(settings, **QUICKLY) as api:
        asked = utc_now()
        said = api.call("GET", "monitor/health")
        date = api.date
        for name in ("metadatabase", parts.SCHEDULER, parts.DAG_PROCESSOR, parts.TRIGGERER):
            status = (said.get(name.replace("-", "_")) or {}).get("status")
            if status != "healthy":
                well = False
                beat = probes.last_beat(said, name)
                ago = "" if beat is None else f", last heartbeat {time.time() - beat:.0f} s ago"
                finding = f"{name} of {api.url} is {status or 'not there'}{ago}"
                yield "problem", finding, "Start it again; its log says why it ended."
        skew = list(of_clock(api.url, parsedate_to_datetime(date), asked)) if date else []
        yield from skew
        for fault in api.import_errors():
            well = False
            last = fault["stack_trace"].strip().splitlines()[-1]
            yield "problem", f"{fault['filename']} cannot be read: {redact_line(last)}", "windsock lint"
        versions = {"Airflow": (api.call("GET", "version")["version"], installed("apache-airflow"))}
        try:
            told = api.call("GET", f"{api.url}/windsock/version")
            versions["Windsock"] = (told["version"], __version__)
        except AirflowRefused as err:
            if err.status not in (200, 404):  # Airflow's UI answers with a page for what nobody serves
                raise
            well = False
            yield (
                "warning",
                f"{api.url} has no plugin windsock_pages of this version",
                "Install Windsock's plugins there.",
            )
    others = list(of_versions(api.url, versions))
    yield from others
    if well and not skew and not others:
        yield "ok", f"{api.url} is well: " + ", ".join(f"{name} {there}" for name, (there, _) in versions.items())


def installed(package: str) -> str:
    """Return the version of a package here; empty: it is not here."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a trainer's image
        return ""


def of_versions(where: str, versions: dict[str, tuple[str, str]]) -> Findings:
    """Compare versions there with those here, where there is one."""
    for name, (there, here) in versions.items():
        if here and there != here:
            yield (
                "warning",
                f"{where} has {name} {there}, here it is {here}",
                "Use the same image, or a checkout of the same version, on both sides.",
            )


def check_online_store(settings: Settings) -> Findings:
    """Look whether features can be written and read there, and whether it lost what it held."""
    path, config = embedded_online_path(settings), raw_config(settings)["online_store"]
    filled = _filled_models(settings)
    refill = "; ".join(f"windsock materialize {model} --all" for model in filled)
    if path is not None:
        yield _of_file(path, filled, refill, elsewhere=settings.elsewhere)
        return
    kind = str(config.get("type"))
    if kind != "redis":
        yield "ok", f"{kind}, by Feast; the first step that writes to it says if it cannot be used"
        return
    from windsock.featurestore.redis_server import look_at_redis

    facts, well = look_at_redis(settings), True
    if facts.keys == 0 and filled:
        well = False
        yield "problem", f"{facts.address} is empty, though features of {', '.join(filled)} were there", refill
    if facts.evicts:
        well = False
        yield (
            "problem",
            f"{facts.address} evicts keys ({facts.evicts}) when it is full: features go missing without a word",
            "Set its maxmemory-policy to noeviction.",
        )
    if facts.cannot_save:
        well = False
        yield (
            "problem",
            f"{facts.address} cannot save to its disk: {facts.cannot_save}",
            "Make room there; its log says why.",
        )
    if well:
        kept = {True: "keeps them over a restart", False: "forgets them at a restart", None: "does not say if it saves"}
        yield "ok", f"{facts.address} takes and gives features, {kept[facts.saves]}; {facts.keys} keys"


def _filled_models(settings: Settings) -> list[str]:
    """List the models whose features were in the online store once."""
    store = Store.of(settings)
    return [model for model in sorted(load_specs(settings)[0]) if store.json_names(model, "online")]


def _of_file(path: Path, filled: list[str], refill: str, *, elsewhere: bool) -> tuple[str, ...]:
    if not path.exists():
        if filled and not elsewhere:
            return "problem", f"{path} is gone, though features of {', '.join(filled)} were there", refill
        return "ok", f"a file of the machine that runs tasks, {path}" if elsewhere else f"none yet, {path}"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            (tables,) = db.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as err:
        return "problem", f"{path} cannot be read: {err}", f"Remove it, then: {refill or 'nothing'}"
    return "ok", f"{path}, {tables} tables"
