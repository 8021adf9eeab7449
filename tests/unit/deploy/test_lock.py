"""The lock: exact pins, each with the hashes of its files, read by whoever installs and by the doctor."""

import re

from windsock.settings import REPO_ROOT
from windsock_local.stack import doctor

LOCK = (REPO_ROOT / "requirements.txt").read_text(encoding="utf-8")
BLOCKS = [block for block in re.split(r"(?m)^(?=\S)", LOCK) if block.strip()]


def test_every_pin_has_hashes() -> None:
    assert [block.split()[0] for block in BLOCKS if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block)] == []
    assert all(re.match(r"[\w.-]+(\[[\w,-]+\])?==[^\s;]+", block) for block in BLOCKS)


def test_the_doctor_compares_every_pin_with_what_is_installed() -> None:
    assert len(doctor._PIN.findall(LOCK)) == len(BLOCKS)
    assert dict(doctor._PIN.findall(LOCK))["torch"][0].isdigit()
