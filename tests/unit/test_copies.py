"""Whether a record was replaced is told by a listing only where the file system says so; with a bucket: test_s3.py."""

from pathlib import Path

import fsspec
import pytest
from bench.counted_bucket import CountedBucket
from fsspec.implementations.memory import MemoryFileSystem

from windsock.copies import tags
from windsock.store import Store


@pytest.mark.parametrize("kind", ["folder", "counted", "memory"])
def test_a_file_that_was_replaced_has_another_tag_and_one_of_which_nothing_is_told_never_counts_as_the_same(
    tmp_path: Path, kind: str
):
    CountedBucket.empty()
    store = Store(str(tmp_path) if kind == "folder" else f"{kind}://tags/store")
    assert tags(store, "days") == {}
    store.write_bytes(b"one", "days", "a.json")
    store.write_bytes(b"one", "days", "b.json")
    store.write_bytes(b"deeper", "days", "history", "a.json")
    first = tags(store, "days")
    assert first.keys() == {"a.json", "b.json"}
    store.write_bytes(b"two", "days", "a.json")
    second = tags(store, "days")
    assert second["a.json"] != first["a.json"]
    assert (second["b.json"] == first["b.json"]) == (kind != "memory")
    if kind == "memory":
        fs = fsspec.filesystem("memory")
        assert isinstance(fs, MemoryFileSystem)
        fs.rm("/tags", recursive=True)
