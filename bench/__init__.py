"""What Windsock costs, each figure beside the physical limit measured in the same run.

``python -m bench`` prints JSON lines; ``figures`` says what a line holds, each other
module is one bench or a process that one needs. ``README.md`` explains the figures.
"""
