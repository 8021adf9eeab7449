#!/bin/sh
# /usr/local/bin/windsock of the image: the package is on PYTHONPATH, not installed, so it has no script of its own.
exec python -m windsock.cli "$@"
