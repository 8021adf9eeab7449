#!/usr/bin/env bash
# Runs a command with a Kubernetes cluster if there is one or one can be started, else without.
#
#   scripts/with-cluster.sh COMMAND [ARGUMENTS]...
#
# The cluster is the one that KUBECONFIG names. Where that is unset, the one kept beside the project is started (needs
# root on Debian), with service addresses and with one GPU that has no device behind it; afterwards it is stopped,
# unless it was running already.
set -euo pipefail
cd "$(dirname "$0")/.."

beside=../shared/kubernetes
if [ -z "${KUBECONFIG:-}" ] && [ -x "$beside/start" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "with-cluster: KUBECONFIG is unset, and only root can start the cluster in $beside" >&2
    elif said=$(FAKE_GPU=1 KUBE_PROXY=1 "$beside/start" 2>&1); then
        KUBECONFIG=$(sed -n 's/^export KUBECONFIG=//p' <<<"$said")
        export KUBECONFIG
        grep -q '^kubelet already up' <<<"$said" || trap '"$beside/stop" >/dev/null 2>&1 || true' EXIT
    else
        printf 'with-cluster: the cluster in %s did not start:\n%s\n' "$beside" "$(tail -n 5 <<<"$said")" >&2
    fi
fi

"$@"
