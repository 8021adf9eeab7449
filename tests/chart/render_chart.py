"""Render a chart as Helm does, checked by its own schema: values in, manifests out, both JSON.

It is called with chart, namespace and release, in an environment that has ``helm-python-sdk``: Helm as a library.
"""

import json
import sys

from helm_python.chart import Chart

chart_file, namespace, release = sys.argv[1:]
values = json.load(sys.stdin)
with Chart.load(chart_file) as chart:
    chart.validate_schema(values=values)
    json.dump(chart.render(values=values, name=release, namespace=namespace), sys.stdout)
