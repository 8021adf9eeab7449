"""An installation in a backup and back: its store, databases, secrets and home.

The order makes it consistent while days run: the records of the store, then the databases, then all other files. What
the records name is there still when its turn comes (``windsock.backup.store_copy``); the databases know of all that the
records tell, and what they know beyond that, the ledger makes up for. The manifest is last.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from windsock import __version__
from windsock.backup.store_copy import STORE, copy_files, finish, put_back, read_records
from windsock.backup.target import Entry, Manifest, Target, time_name, write
from windsock.copies import FOLDER as COPIES
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.files import replace_file
from windsock.format_numbers import NEWEST, RESTORING, WROTE, layout
from windsock.listing import listed
from windsock.redact import redact
from windsock.settings import Settings
from windsock.store import MARKER, Store
from windsock.store_memory import MARK, REMEMBERED
from windsock_local.stack.database import database_alone, home_at_rest
from windsock_local.stack.home import MARKER as HOME_MARKER
from windsock_local.stack.home import Home, read_stack
from windsock_local.stack.postgres import DATABASES, Postgres

HOME, DUMPS = "home", "databases"
BACKUPS = "backups"
"""In a home, where an upgrade puts its backup."""
ONLINE = "feast/online.db"
_LEFT_OUT = {"postgres", "run", "logs", "airflow/logs", "demo", BACKUPS, COPIES, REMEMBERED}
"""Of a home: what the dumps hold, what only a running stack needs, logs, and the demo, which is a home of its own."""
_SQLITE = b"SQLite format 3\0"

Tick = Callable[[str, int, int], None]
"""Told of progress: of what, how much is done, of how much."""


def is_embedded(home: Home) -> bool:
    """Say whether the databases of an installation are the embedded ones, which lie in its home."""
    return (home.postgres / "PG_VERSION").exists()


def back_up(settings: Settings, target: Target, tick: Tick) -> Manifest:
    """Back up an installation, running or not.

    Raises:
        SpecError: The target lies in the store or is of the home's own folders.
        UpstreamUnavailable: A part cannot be read just now.
    """
    home, store = Home.of(settings), Store.of(settings)
    store.look(earlier=True)
    said = store.said()
    _refuse_inside(target, store, home)
    running, embedded = read_stack(settings) is not None, is_embedded(home)
    name = time_name()
    last = target.manifest() if target.names() else None
    with ExitStack() as held:
        if embedded and not running:
            held.enter_context(home_at_rest(home))
        records = read_records(store, target)
        tick("records", len(records.files), len(records.files))
        files = _dump(home, target, alone=not running, tick=tick) if embedded else {}
        if home.root.is_dir():
            files |= _copy_home(home, store, target, at_rest=embedded and not running, tick=tick)
        files |= copy_files(store, target, records, last, lambda done, of: tick(STORE, done, of))
    manifest = Manifest(
        made_at=name,
        store=redact(store.root),
        home=str(home.root),
        mark=str(said.get(MARK, "")),
        windsock=__version__ if layout(STORE, said) == NEWEST[STORE] else str(said.get(WROTE)),
        files=files,
        versions={name: Postgres(home).tables_of(name) for name in DATABASES} if embedded else {},
        at_rest=embedded and not running,
    )
    target.finish(manifest)
    return manifest


def _refuse_inside(target: Target, store: Store, home: Home) -> None:
    if not target.store.is_local:
        inside = target.store.root == store.root or target.store.root.startswith(f"{store.root}/")
    else:
        path = Path(target.store.path()).resolve()
        places = [home.root / name for name in ("secrets", "mlflow-artifacts", "postgres", "feast", "airflow")]
        places += [Path(store.path()).resolve()] if store.is_local else []
        inside = path == home.root or any(place == path or place in path.parents for place in places)
    if inside:
        raise SpecError(f"{target}: lies in what is backed up. Name a folder or URL of its own, on another disk.")


def _dump(home: Home, target: Target, *, alone: bool, tick: Tick) -> dict[str, Entry]:
    with ExitStack() as held:
        server = held.enter_context(database_alone(home)) if alone else Postgres(home)
        found = {}
        for done, name in enumerate(DATABASES, start=1):
            with tempfile.NamedTemporaryFile(prefix="windsock-dump-") as file:
                server.dump(name, file.file)
                found[f"{DUMPS}/{name}.dump"] = _keep(target, Path(file.name))
            tick(DUMPS, done, len(DATABASES))
        return found


def _copy_home(home: Home, store: Store, target: Target, *, at_rest: bool, tick: Tick) -> dict[str, Entry]:
    inside = Path(store.path()).resolve() if store.is_local else None
    kept = Path(target.store.path()).resolve() if target.store.is_local else None
    skipped = {home.root / name for name in _LEFT_OUT} | {path for path in (inside, kept) if path is not None}
    if not at_rest:  # it would be of another moment than the store, from which it is made again
        skipped.add(home.root / ONLINE)
    paths, found = sorted(_files_below(home.root, skipped)), dict[str, Entry]()
    for done, path in enumerate(paths, start=1):
        try:
            found[f"{HOME}/{path.relative_to(home.root)}"] = _keep_home_file(target, path)
        except FileNotFoundError:  # removed meanwhile
            continue
        finally:
            tick(HOME, done, len(paths))
    return found


def _files_below(root: Path, skipped: set[Path]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in skipped and not (here / name).is_symlink()]
        for name in names:
            path = here / name
            companion = name.endswith(("-wal", "-shm", "-journal")) and path.with_name(name.rpartition("-")[0]).exists()
            if path not in skipped and path.is_file() and not companion and not name.endswith((".tmp", ".lock")):
                yield path


def _keep_home_file(target: Target, path: Path) -> Entry:
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            return _keep(target, path)
    with tempfile.TemporaryDirectory(prefix="windsock-dump-") as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as snapshot:
            source.backup(snapshot)
        return _keep(target, copy)


def _keep(target: Target, path: Path) -> Entry:
    return target.keep_file(LocalFileSystem(), str(path), path.stat().st_size)


def restore(settings: Settings, target: Target, manifest: Manifest, only: str | None, tick: Tick) -> None:
    """Put a backup, or its ``only`` part (``store`` or ``home``), where nothing is yet; run again, it goes on.

    Raises:
        SpecError: Something is there already.
        DamagedRecord: The backup is damaged.
    """
    home, store = Home.of(settings), Store(settings.store.rstrip("/"))
    note = f"{target} {manifest.made_at}"
    if only != STORE:
        _refuse_full_home(home, store, note)
    if only != HOME:
        _refuse_full_store(store, note)
    with ExitStack() as held:
        if only != STORE:
            home.root.mkdir(parents=True, exist_ok=True)
            replace_file(home.marker, f"{RESTORING}: {note}\n".encode())
            held.enter_context(home_at_rest(home))
        if only != HOME:
            put_back(target, manifest, store, lambda done, of: tick(STORE, done, of))
        if only != STORE:
            _put_back_home(home, target, manifest, tick)
            _load(home, target, manifest, tick)
            _put(target, manifest.part(HOME), HOME_MARKER, home)
        if only != HOME:  # last: killed before this line, --only store goes on
            finish(target, manifest, store)
    if not manifest.mark:  # of version 0.1: what the home remembers is from after an upgrade
        (home.root / REMEMBERED).unlink(missing_ok=True)
    Store.of(settings).look(earlier=True)  # the home remembers the store's mark, at its new address


def _refuse_full_home(home: Home, store: Store, note: str) -> None:
    if not home.root.is_dir() or home.said().get(RESTORING) == note:
        return
    inside = Path(store.path()).resolve() if store.is_local else None
    if there := [path.name for path in home.root.iterdir() if path.resolve() != inside]:
        raise SpecError(
            f"{home.root}: is not empty ({', '.join(sorted(there)[:3])}), and a home that is there is not overwritten. "
            "Move it away, name another one with --home, or restore the store alone with --only store."
        )


def _refuse_full_store(store: Store, note: str) -> None:
    files = [file.name for file in listed(store, "")]
    if not files or (MARKER in files and store.read_json(MARKER).get(RESTORING) == note):
        return
    raise SpecError(
        f"{redact(store.root)}: is not empty ({files[0]}), and a store that is there is not overwritten. Move it away, "
        "name another place with WINDSOCK_STORE, or restore the home alone with --only home."
    )


def _put_back_home(home: Home, target: Target, manifest: Manifest, tick: Tick) -> None:
    files = manifest.part(HOME)
    names = [name for name in files if name != HOME_MARKER]
    for done, name in enumerate(names, start=1):
        _put(target, files, name, home)
        tick(HOME, done, len(names))
    if home.secrets.is_dir():
        home.secrets.chmod(0o700)


def _put(target: Target, files: dict[str, Entry], name: str, home: Home) -> None:
    if name in files:
        entry = files[name]
        write(Store(str(home.root)), name, entry.size, target.parts(entry, f"{HOME}/{name}"), mode=0o600)


def _load(home: Home, target: Target, manifest: Manifest, tick: Tick) -> None:
    dumps = manifest.part(DUMPS)
    if not dumps:
        return
    shutil.rmtree(home.postgres, ignore_errors=True)  # what an earlier try has left
    with database_alone(home) as server:
        for done, name in enumerate(DATABASES, start=1):
            entry = dumps[f"{name}.dump"]
            with tempfile.TemporaryFile(prefix="windsock-dump-") as file:
                file.writelines(target.parts(entry, f"{DUMPS}/{name}.dump"))
                file.seek(0)
                server.load(name, file)
            tick(DUMPS, done, len(dumps))
            server.note_migrated(name, manifest.versions.get(name, ""))


def refill(settings: Settings) -> Iterator[str]:
    """Fill the online store of a restored installation again, and yield what is left to do by hand."""
    from windsock.featurestore.refill import refill_model  # brings Feast
    from windsock.spec import load_specs

    for model, spec in load_specs(settings)[0].items():
        try:
            for _ in refill_model(settings, spec):
                pass
        except (SpecError, UpstreamUnavailable) as err:
            yield f"windsock materialize {model} --all    # its online features: {err}"
