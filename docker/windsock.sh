#!/bin/sh
# /usr/local/bin/windsock of the image: the package is on PYTHONPATH, not installed, so it has no script of its own.
# Through the entrypoint, which `docker exec` and `kubectl exec` pass by: it reads secrets from their files.
exec /entrypoint python -m windsock.cli "$@"
