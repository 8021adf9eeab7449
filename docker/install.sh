#!/bin/sh
# Makes the virtual environment of an image, or installs more into it; runs only while an image is built.
#
#   install.sh cpu|cuda VENV ARGUMENTS-OF-UV-PIP-INSTALL...
#
# Mounted beside it: /wheels (a folder of wheels, may be empty), /run/secrets/ca (certificates of a proxy, may be
# missing) and /etc/uv/uv.toml (which package index to use, may be missing). None of them stays in the image.
set -eu
variant=$1 venv=$2
shift 2

[ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca
case $variant in
    cpu)
        # torch's CPU build is not on PyPI: from the folder of wheels if there is one, else from torch's own index.
        if [ -n "$(ls /wheels)" ]; then set -- --find-links /wheels "$@"; else set -- --torch-backend cpu "$@"; fi
        ;;
    cuda) ;; # PyPI's torch is the CUDA build
    *)
        echo "install.sh: VARIANT is '$variant'; it has to be cpu or cuda" >&2
        exit 64
        ;;
esac

export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
[ -d "$venv" ] || uv venv --quiet --python "$(command -v python3)" "$venv"
uv pip install --python "$venv/bin/python" "$@"

packages=$(echo "$venv"/lib/python3.*/site-packages)
# What no program needs: tests, C++ headers, debug and test binaries. `testing` packages stay, libraries import them.
rm -rf "$packages"/torch/test "$packages"/torch/include "$packages"/torch/share "$packages"/pyarrow/include
find "$packages"/torch/bin -mindepth 1 -maxdepth 1 ! -name torch_shm_manager -exec rm -rf {} +
find "$packages"/torch/lib -name 'lib*test*.so' -delete
for package in numpy scipy pandas pyarrow sklearn statsmodels sympy matplotlib networkx; do
    [ ! -d "$packages/$package" ] || find "$packages/$package" -type d -name tests -prune -exec rm -rf {} +
done

# LightGBM wants the system's libgomp.so.1, torch brings one. One file for both: a single thread pool, and no apt.
mkdir -p "$venv/lib/openmp"
for library in "$packages"/torch/lib/libgomp*.so.1*; do ln -sf "$library" "$venv/lib/openmp/libgomp.so.1"; done
"$venv/bin/python" -c "import os; os.stat('$venv/lib/openmp/libgomp.so.1')" # fails the build if torch has none
