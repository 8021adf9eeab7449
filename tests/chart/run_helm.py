"""Do what Helm does, with values as JSON on standard input.

    run_helm.py render|install|upgrade|uninstall CHART NAMESPACE RELEASE

It is called in an environment that has ``helm-python-sdk``: Helm as a library. The chart's own schema
checks the values; ``render`` writes the manifests, path to text, as JSON.
"""

import json
import os
import sys

from helm_python.chart import Chart
from helm_python.config import Config

HOOKS_SECONDS = 900

action, chart_file, namespace, release = sys.argv[1:]
values = json.load(sys.stdin)
with Chart.load(chart_file) as chart:
    chart.validate_schema(values=values)
    if action == "render":
        json.dump(chart.render(values=values, name=release, namespace=namespace), sys.stdout)
    else:
        with Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=namespace) as cluster:
            if action == "uninstall":
                cluster.uninstall(release)
            else:
                getattr(cluster, action)(chart, release, values=values, namespace=namespace, timeout=HOOKS_SECONDS)
