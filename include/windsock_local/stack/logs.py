"""The parts' log files: one each, appended, kept to a bounded size."""

import shlex
from datetime import UTC, datetime
from pathlib import Path

_LARGEST_BYTES = 20 * 1024 * 1024
_TAIL_BYTES = 16 * 1024


def begin(path: Path, command: list[str]) -> None:
    """Mark the start of a process in its log; a large log is put aside first."""
    if path.exists() and path.stat().st_size > _LARGEST_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    with path.open("a", encoding="utf-8") as file:
        file.write(f"--- {datetime.now(UTC).isoformat(timespec='seconds')} {shlex.join(command)}\n")


def tail(path: Path, lines: int = 25) -> str:
    """Return the last lines of a log, indented; a remark if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as err:
        return f"  (cannot be read: {err.strerror})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (empty)"
