"""``python -m bench.recovery_picture``: draw what the bench ``recovery`` kept as ``docs/images/recovery.svg``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bench.recovery import KEPT
from windsock.settings import REPO_ROOT

TARGET = REPO_ROOT / "docs" / "images" / "recovery.svg"
_COLOURS = {"before": "#b42318", "now": "#1f4e8c", "now, refit": "#7aa7d9", "bound": "#999999"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BEFORE = 640, 260, 46, 14, 3


def picture(seeds: list[dict[str, Any]]) -> str:
    """Return the mean over seeds of production precision by day, as a share of what is attainable, for each rule."""
    days = len(seeds[0]["rules"]["now"]["by_day"])

    def at(day: float, share: float) -> str:
        x = _LEFT + (day + _BEFORE) * (_WIDTH - _LEFT - 10) / (days - 1)
        return f"{x:.1f},{_TOP + (1.2 - share) * (_HEIGHT - _TOP - 40) / 1.2:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="11">',
        f"<title>Average precision in production around a drift, mean of {len(seeds)} seeds</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for share in (0.0, 0.5, 0.9, 1.0):
        dash = ' stroke-dasharray="4 3"' if share == 0.9 else ""
        ends = f"{at(-_BEFORE, share)} {at(days - 1 - _BEFORE, share)}"
        line = f'<polyline points="{ends}" stroke="#ddd" fill="none"{dash}/>'
        x, y = at(-_BEFORE, share).split(",")
        parts += [line, f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{share:g}</text>']
    for day in range(0, days - _BEFORE, 7):
        x, y = at(day, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 15}" text-anchor="middle">day {day}</text>')
    for n, (rule, colour) in enumerate(_COLOURS.items()):
        shares = np.mean([np.array(s["rules"][rule]["by_day"]) / s["attainable"] for s in seeds], axis=0)
        points = " ".join(at(day - _BEFORE, share) for day, share in enumerate(shares))
        parts.append(f'<polyline points="{points}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts.append(f'<text x="{_LEFT + n * 120}" y="{_HEIGHT - 6}" fill="{colour}">{rule}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    found = [json.loads(file.read_text()) for file in sorted(KEPT.glob("*.json"))]
    TARGET.write_text(picture(found), encoding="utf-8")
    print(f"{TARGET}: {len(found)} seeds")
