#!/usr/bin/env bash
# Compiles requirements.in into requirements.txt: one lock for everything, exact pins, with the hashes of every wheel.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .uv/bin/uv) # the one beside the project is setup's
"$uv" --version >/dev/null || { echo "lock: uv is not here; 'make setup' installs it into .uv/" >&2; exit 1; }
links=()
for folder in ${PIP_FIND_LINKS:-}; do links+=(--find-links "$folder"); done
# Pins in force are kept; torch's has to name its CPU build, or its CUDA packages would be locked too.
[ ! -f requirements.txt ] || sed -i -E 's/^(torch==[0-9.]+)( \\)?$/\1+cpu\2/' requirements.txt
"$uv" pip compile requirements.in --python-version 3.11 "${links[@]}" --no-header --quiet \
    --generate-hashes --output-file requirements.txt
# Plain torch, no CUDA package: pip and uv then take the CPU wheel where one is offered. Its hashes are of all variants: of
# PyPI's files, which are the CUDA builds on Linux, and of the CPU wheels that are offered here.
sed -i -E -e '/^torch==/,/^    #/{/^    --hash=/d}' -e 's/^(torch==[0-9.]+)(\+cpu)?( \\)?$/\1/' requirements.txt
torch=$(sed -nE 's/^torch==([0-9.]+)$/\1/p' requirements.txt)
cpu=$(for folder in ${PIP_FIND_LINKS:-}; do find "$folder" -name "torch-$torch+cpu-*.whl" -exec sha256sum {} +; done)
if [ -z "$cpu" ]; then
    echo "lock: no CPU wheel of torch $torch to take the hash of; name its folder in PIP_FIND_LINKS" >&2
    exit 1
fi
cuda=$(echo "torch==$torch" | "$uv" pip compile - --python-version 3.11 --no-deps --generate-hashes --no-header --quiet)
hashes=()
while read -r hash; do hashes+=("$hash"); done < <(printf '%s\n' "$cpu" "$cuda" | grep -oE '\b[0-9a-f]{64}\b' | sort -u)
pin=$(mktemp)
{ printf 'torch==%s' "$torch"; printf ' \\\n    --hash=sha256:%s' "${hashes[@]}"; echo; } > "$pin"
sed -i -e "/^torch==/{r $pin" -e 'd}' requirements.txt
rm "$pin"
if grep -nE '^(nvidia|triton|cuda)' requirements.txt; then
    echo "lock: the lines above are CUDA packages; compile it where a CPU wheel of torch is offered (PIP_FIND_LINKS)" >&2
    exit 1
fi
