#!/usr/bin/env bash
# Makes .venv from the lock, once: does nothing if it already fits requirements.txt and pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

want=$(cat requirements.txt pyproject.toml | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/windsock ] && [ "$(cat .venv/.windsock-lock 2>/dev/null)" = "$want" ]; then
    exit 0
fi

# uv installs ten times faster than pip and can bring Python 3.11 itself where a machine lacks it.
if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    uv=uv
else
    if [ ! -x .uv/bin/uv ]; then
        echo "setup: uv is not here; installing it into .uv/ with pip"
        python3 -m venv .uv
        .uv/bin/python -m pip install --quiet uv
    fi
    uv=.uv/bin/uv
fi

# uv does not read pip's configuration: pass on the folders of wheels that pip was told about.
folders=${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
links=()
for folder in $folders; do links+=(--find-links "$folder"); done

[ -x .venv/bin/python ] || "$uv" venv --quiet --python 3.11 .venv
echo "setup: installing the locked packages into .venv (once; 1 to 3 minutes)"
export UV_COMPILE_BYTECODE=1 # or the first imports are two to three times slower

# PyPI's torch brings 3 GB of CUDA libraries. A machine without a GPU gets the CPU build: from the folders above, which uv
# prefers by itself, else from torch's own index. Not --torch-backend=auto: with a GPU it would take a build from that
# index whose hash is not in the lock, while PyPI's is.
torch=$(awk '/^torch==/{on=1} on && /^ *#/{exit} on' requirements.txt)
version=$(sed -nE 's/^torch==([0-9.]+).*/\1/p' <<<"$torch")
offered=$(for folder in $folders; do find "$folder" -name "torch-$version+cpu-*.whl" 2>/dev/null; done)
gpu=$([ -e /proc/driver/nvidia/version ] && echo driver || command -v nvidia-smi || true)
if [ -z "$offered$gpu" ] && [ "$(uname -s)" = Linux ]; then
    why=$("$uv" pip install --quiet --python .venv/bin/python --torch-backend cpu --no-deps -r - <<<"$torch" 2>&1) || {
        echo "setup: torch's CPU build cannot be had (${why##*$'\n'}); PyPI's is taken, with 3 GB of CUDA libraries." \
            "A folder with the CPU wheel, named in PIP_FIND_LINKS, spares them"
    }
fi
# uv compares each package with the lock's hashes; of torch these are all variants' (see lock.sh).
# What the lock does not name (the CUDA libraries of a GPU build of torch) comes with torch itself.
"$uv" pip install --quiet --python .venv/bin/python "${links[@]}" -r requirements.txt
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
echo "setup: making the database that every new home starts from (once)"
.venv/bin/python scripts/database_template.py || echo "setup: not made; a home's first start will take longer"
echo "$want" > .venv/.windsock-lock
echo "setup: done"
