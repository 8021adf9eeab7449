"""Tell an image's Python of the project's entry points: its code lies on PYTHONPATH, where nothing was installed.

    dist_info.py PYPROJECT FOLDER

Without them `windsock` has the product's own commands alone, and neither `status` nor `doctor`, `backfill` or `backup`.
"""

import sys
import tomllib
from pathlib import Path

pyproject, folder = map(Path, sys.argv[1:])
project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
info = folder / f"{project['name']}-{project['version']}.dist-info"
info.mkdir()
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
(info / "entry_points.txt").write_text(
    "".join(
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in entries.items())
        for group, entries in project["entry-points"].items()
    )
)
