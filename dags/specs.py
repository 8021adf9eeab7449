"""Report broken model specs as one import error of Airflow.

This file makes no DAG. The files of the stages leave broken specs out, so that one of
them never hides the DAGs of the other models; here they show.
"""

from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec import load_specs

broken = load_specs(Settings.from_env())[1]
if broken:
    raise SpecError("\n\n".join(map(str, broken.values())))
