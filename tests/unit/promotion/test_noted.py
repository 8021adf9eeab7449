"""The log of promotions is read in one piece once it is long, and every fault of an entry is seen all the same."""

import os
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from churn_model import DAY, Churn
from windsock import promotions
from windsock.errors import DamagedRecord
from windsock.promotions import Promotion
from windsock.store import Store


@pytest.fixture
def churn(tmp_path: Path) -> Churn:
    churn = Churn.make(tmp_path)
    for n in range(8):
        day = DAY + timedelta(days=n)
        entry = Promotion(0, "promote", str(n + 1), f"run-{n}", None, day, day, "test")
        promotions.append(churn.settings, churn.spec, entry, after=promotions.current(churn.settings, churn.spec))
    promotions.note_history(churn.settings, churn.spec)
    return churn


def folder(churn: Churn) -> Path:
    return Path(churn.settings.store, "churn", "promotions")


def versions(churn: Churn) -> list[str]:
    return [entry.version for entry in promotions.history(churn.settings, churn.spec)]


def test_noted_entries_are_read_at_once_and_later_ones_each(churn: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Store.read_bytes
    monkeypatch.setattr(Store, "read_bytes", lambda self, *parts: read.append(parts[-1]) or real(self, *parts))
    assert versions(churn) == [str(n + 1) for n in range(8)]
    assert read == ["promotions.json"]
    entry = Promotion(0, "promote", "9", "run-8", None, DAY + timedelta(days=9), DAY, "test")
    promotions.append(churn.settings, churn.spec, entry, after=promotions.current(churn.settings, churn.spec))
    read.clear()
    assert versions(churn)[-1] == "9"
    assert read == ["promotions.json", "000009.json"]


def test_a_noted_entry_that_is_lost_or_changed_is_named(churn: Churn, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(folder(churn), kept)
    for name in ("000001.json", "000004.json"):
        path = folder(churn) / name
        path.unlink()
        with pytest.raises(DamagedRecord, match=re.escape(name)):
            versions(churn)
        path.write_text("{")
        with pytest.raises(DamagedRecord, match=re.escape(name)):
            versions(churn)
        content = (kept / name).read_text()
        path.write_text(content.replace("run-", "ran-"))  # as long as it was
        os.utime(path, (0, 0))
        entry = next(e for e in promotions.history(churn.settings, churn.spec) if e.seq == int(path.stem))
        assert entry.run.startswith("ran-"), "what the file says counts, not what was noted"
        shutil.copy2(kept / name, path)
    assert len(versions(churn)) == 8


@pytest.mark.parametrize("note", ["{", "[]", "{}", '{"000001.json 1 2026-01-01": {}}'])
def test_a_note_that_is_damaged_or_of_another_store_costs_nothing(churn: Churn, note: str) -> None:
    Path(churn.settings.store, "churn", "promotions.json").write_text(note)
    assert len(versions(churn)) == 8
