"""Folders of part files, compressed files, and what says that a delivery is whole."""

import bz2
import gzip
import io
import os
import zipfile
from datetime import timedelta
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources_data import csv_bytes, parquet

from delivered import DAY, Inbox, transactions, with_column
from small_model import small_fraud
from windsock.errors import DayRejected, UpstreamUnavailable
from windsock.ingest.kept import kept_columns, kept_delivery
from windsock.ingest.sources.delivery import NotDelivered, fetch
from windsock.ingest.sources.parse import csv_batches
from windsock.store import Store

PART = "part-0000{}-1f8a-c000.snappy.parquet"


def spark(folder: Path, parts: list[pa.Table], *, done: bool = True) -> None:
    """Write part files as Spark does, with checksums, a mark and what it leaves behind."""
    (folder / "_temporary" / "0").mkdir(parents=True)
    for n, part in enumerate(parts):
        (folder / PART.format(n)).write_bytes(parquet(part))
        (folder / f".{PART.format(n)}.crc").write_bytes(b"crc\x00")
    if done:
        (folder / "_SUCCESS").touch()
        (folder / "._SUCCESS.crc").write_bytes(b"crc\x00")


@pytest.mark.parametrize("ending", ["/", ".parquet/"])
def test_a_folder_of_part_files_is_one_delivery_once_it_is_marked(tmp_path: Path, ending: str) -> None:
    inbox = Inbox(tmp_path)
    source = {"kind": "files", "url": f"{inbox.folder}/{{ds}}{ending}"}
    _, inbox.spec = small_fraud(tmp_path, source=source)
    table, folder = transactions(400), inbox.folder / f"{DAY}{ending}"
    spark(folder, [table.slice(0, 150), table.slice(150, 0), table.slice(150)], done=False)

    with pytest.raises(UpstreamUnavailable, match="not the mark _SUCCESS"):
        inbox.ingest()
    assert inbox.record() is None
    (folder / "_SUCCESS").touch()
    assert inbox.ingest()["rows"] == 400
    first = inbox.record()
    for part in folder.glob("part-*"):  # the same rows, written again
        part.rename(part.with_name(part.name.replace("1f8a", "77cd")))

    assert inbox.ingest()["changed"] is False
    assert inbox.record().detail["source"]["hash"] == first.detail["source"]["hash"]


def test_parts_that_do_not_fit_together_are_refused_with_the_part(tmp_path: Path) -> None:
    table = transactions(40)
    cases = {
        "has not the columns that part-0000": [table, table.drop(["TERMINAL_ID"])],
        "not in the same type": [table, with_column(table, "TX_AMOUNT", ["x"] * 40)],
        "holds no part file": [],
    }
    for n, (says, parts) in enumerate(cases.items()):
        _, spec = small_fraud(tmp_path / str(n), source={"kind": "files", "url": f"{tmp_path}/{n}/{{ds}}/"})
        spark(tmp_path / str(n) / str(DAY), parts)
        assert says in fetch(spec, DAY).problem
    folder = tmp_path / "0" / str(DAY)
    _, spec = small_fraud(tmp_path, source={"kind": "files", "url": f"{tmp_path}/0/{{ds}}/"})
    (folder / PART.format(1)).write_bytes(parquet(table)[:-9])
    assert f"{PART.format(1)}: the Parquet file is truncated" in fetch(spec, DAY).problem
    (folder / "country=DE").mkdir()
    assert "another folder, 'country=DE'" in fetch(spec, DAY).problem
    (folder / "part-00002.csv._COPYING_").touch()
    with pytest.raises(NotDelivered, match=r"part-00002.csv._COPYING_ is being written"):
        fetch(spec, DAY)


def test_parts_in_any_order_of_columns_untyped_or_empty_are_one_table(tmp_path: Path) -> None:
    table = transactions(40)
    parts = [table, table.select(table.column_names[::-1]), with_column(table, "TX_FRAUD", pa.nulls(40))]
    spark(tmp_path / str(DAY), parts)
    _, spec = small_fraud(tmp_path, source={"kind": "files", "url": f"{tmp_path}/{{ds}}/"})
    rows = fetch(spec, DAY).rows
    assert (rows.num_rows, rows.schema, rows["TX_FRAUD"].null_count) == (120, table.schema, 40)

    memory = fsspec.filesystem("memory")
    memory.pipe({f"/parts/{DAY}/part-{n}.csv.gz": gzip.compress(csv_bytes(table)) for n in (0, 2)})
    memory.pipe({f"/parts/{DAY}/part-1.csv": b"", f"/parts/{DAY}/_SUCCESS": b""})
    _, spec = small_fraud(tmp_path, source={"kind": "files", "url": "memory://parts/{ds}/"})
    assert fetch(spec, DAY).rows.num_rows == 80


def test_a_mark_of_the_specs_own_says_when_a_file_or_folder_is_whole(tmp_path: Path) -> None:
    for ending, mark, at in ((".csv", "{ds_nodash}.done", "20260301.done"), ("/", "_DONE", f"{DAY}/_DONE")):
        source = {"kind": "files", "url": f"{tmp_path}/{{ds}}{ending}", "mark": mark}
        _, spec = small_fraud(tmp_path, source=source)
        if ending == "/":
            spark(tmp_path / str(DAY), [transactions(4)])
        else:
            (tmp_path / f"{DAY}.csv").write_bytes(csv_bytes(transactions(4)))
        with pytest.raises(NotDelivered, match=f"not the mark {at.rpartition('/')[2]}"):
            fetch(spec, DAY)
        (tmp_path / at).touch()
        assert fetch(spec, DAY).rows.num_rows == 4


def test_limits_hold_for_all_parts_together(tmp_path: Path) -> None:
    spark(tmp_path / str(DAY), [transactions(40)] * 3)
    source = {"kind": "files", "url": f"{tmp_path}/{{ds}}/"}
    size = sum(p.stat().st_size for p in (tmp_path / str(DAY)).glob("part*"))
    for limit in ({"max_rows": 119}, {"max_bytes": size - 1}):
        _, spec = small_fraud(tmp_path, source=source, validation=limit)
        assert "the delivery holds more than" in fetch(spec, DAY).problem


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return buffer.getvalue()


def zst(raw: bytes) -> bytes:
    return pa.compress(raw, "zstd", asbytes=True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("ending", ["gz", "bz2", "zst", "zip"])
def test_compressed_files_are_unpacked_within_the_limit_and_found_again_where_they_are_kept(
    tmp_path: Path, kind: str, ending: str
) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zst, "zip": lambda raw: zipped(day=raw)}[ending]
    inbox = Inbox(tmp_path, ending=f"{kind}.{ending}")
    path, table = inbox.folder / f"{DAY}.{inbox.ending}", transactions(400)
    path.write_bytes(pack((csv_bytes if kind == "csv" else parquet)(table)))
    assert inbox.ingest()["rows"] == 400
    raw = path.read_bytes()

    path.write_bytes(pack(b"a,b\n" * 2**19))
    _, inbox.spec = small_fraud(tmp_path, source=inbox.spec.source.model_dump(), validation={"max_bytes": 2**20})
    assert "more than 1,048,576 bytes" in fetch(inbox.spec, DAY).problem
    for damaged in (raw[: len(raw) // 2], raw[:-2], b"", b"no archive"):
        path.write_bytes(damaged)
        assert fetch(inbox.spec, DAY).problem
    record, store = inbox.record(), Store.of(inbox.settings)
    assert kept_delivery(store, record).rows.num_rows == 400
    assert list(kept_columns(store, record)) == table.column_names


def test_a_zip_archive_of_none_several_or_locked_files_is_refused(tmp_path: Path) -> None:
    raw = csv_bytes(transactions(4))
    locked = bytearray(zipped(a=raw))
    locked[6] |= 1  # the bit that says that a file needs a password, in both of its headers
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    _, spec = small_fraud(tmp_path, source={"kind": "files", "url": f"{tmp_path}/{{ds}}.csv.zip"})
    cases = {
        "holds 2 files ('a', 'b'), not one": zipped(a=raw, b=raw),
        "holds 0 files (none)": zipped(),
        "encrypted": bytes(locked),
    }
    for says, archive in cases.items():
        (tmp_path / f"{DAY}.csv.zip").write_bytes(archive)
        assert says in fetch(spec, DAY).problem
    (tmp_path / f"{DAY}.csv.zip").write_bytes(zipped(**{"a": raw, "__MACOSX/._a": b"x"}))
    assert fetch(spec, DAY).rows.num_rows == 4


def test_a_big_file_in_a_zip_is_cut_and_compressed_parquet_says_why_it_is_not(tmp_path: Path) -> None:
    table = pa.concat_tables([transactions(40), transactions(40, DAY + timedelta(days=1))])
    (tmp_path / "all.csv.zip").write_bytes(zipped(all=csv_bytes(table)))
    (tmp_path / "all.parquet.gz").write_bytes(gzip.compress(parquet(table)))
    _, spec = small_fraud(tmp_path, source={"kind": "files", "url": f"{tmp_path}/all.csv.zip"})
    assert fetch(spec, DAY).rows.num_rows == 40
    source = {"kind": "files", "url": f"{tmp_path}/all.parquet.gz", "quiet_seconds": 0}
    _, spec = small_fraud(tmp_path, source=source)
    assert "cannot be cut by day" in fetch(spec, DAY).problem


def test_a_file_that_changes_while_it_is_read_is_not_there_yet(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / f"{DAY}.parquet"
    pq.write_table(transactions(40), path)
    _, spec = small_fraud(tmp_path, source={"kind": "files", "url": f"{tmp_path}/{{ds}}.parquet"})
    local = type(fsspec.filesystem("file"))
    read = local.cat_file

    def read_while_it_grows(*args, **kwargs):
        raw = read(*args, **kwargs)
        path.write_bytes(raw + b"more")
        return raw

    monkeypatch.setattr(local, "cat_file", read_while_it_grows)
    with pytest.raises(NotDelivered, match="changed while it was read"):
        fetch(spec, DAY)


def test_the_newest_day_of_a_big_file_is_taken_once_something_says_that_it_is_whole(tmp_path: Path) -> None:
    day, later = transactions(40), transactions(1, DAY + timedelta(days=1))
    whole = {"csv": csv_bytes(day), "parquet": parquet(day)}
    for ending, raw in whole.items():
        path = tmp_path / f"all.{ending}"
        source = {"kind": "files", "url": str(path)}

        def fetched(source=source, **spec) -> int | None:
            rows = fetch(small_fraud(tmp_path, source=source, **spec)[1], DAY).rows
            return None if rows is None else rows.num_rows

        for grown in (raw[: len(raw) // 2], raw):  # a copy: cut within a row or before the footer, then all of it
            path.write_bytes(grown)
            with pytest.raises(NotDelivered, match=r"less than 60 seconds ago, so it may still be growing"):
                fetched()
        assert fetched(last_day=str(DAY)) == fetched(source={**source, "quiet_seconds": 0}) == 40
        (tmp_path / f"{ending}.done").touch()
        assert fetched(source={**source, "mark": f"{ending}.done"}) == 40
        os.utime(path, (0, 0))
        assert fetched() == 40
        path.write_bytes((csv_bytes if ending == "csv" else parquet)(pa.concat_tables([day, later])))
        assert fetched() == 40
        path.write_bytes(raw[:-20])
        os.utime(path, (0, 0))
        assert fetched() is None


def test_files_and_parts_rest_as_long_as_the_spec_says(tmp_path: Path) -> None:
    spark(tmp_path / str(DAY), [transactions(40)] * 2)
    (tmp_path / f"{DAY}.csv").write_bytes(csv_bytes(transactions(40)))
    for ending, rows in (("/", 80), (".csv", 40)):
        source = {"kind": "files", "url": f"{tmp_path}/{{ds}}{ending}", "quiet_seconds": 3600}
        _, spec = small_fraud(tmp_path, source=source)
        with pytest.raises(NotDelivered, match="less than 3600 seconds ago"):
            fetch(spec, DAY)
        for path in [*(tmp_path / str(DAY)).glob("part*")] if ending == "/" else [tmp_path / f"{DAY}.csv"]:
            os.utime(path, (0, 0))
        assert fetch(spec, DAY).rows.num_rows == rows


def test_a_folder_whose_day_is_worse_leaves_the_day_in_force(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, ending="parquet/")
    spark(inbox.folder / f"{DAY}.parquet", [transactions(40)])
    inbox.ingest()
    (inbox.folder / f"{DAY}.parquet" / PART.format(0)).write_bytes(b"no Parquet")
    with pytest.raises(DayRejected, match="stays in force"):
        inbox.ingest()


def test_a_connection_that_breaks_within_an_archive_is_no_damaged_file() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", csv_bytes(transactions(4000)))

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() < 1000:
                raise ConnectionResetError(104, "Connection reset by peer")
            return super().read(size)

    with pytest.raises(ConnectionResetError):
        list(csv_batches(lambda: Broken(packed.getvalue()), "zip"))
