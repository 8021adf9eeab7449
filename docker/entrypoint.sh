#!/bin/bash
# Entry of windsock/airflow: runs what it is given, with secrets read from files.
#
#   api-server | scheduler | dag-processor | ...   a command of Airflow's, `airflow` may be left out
#   airflow ... | windsock ... | mlflow ... | bash -c '...'   anything on the path
#
# A secret that only comes by environment variable may be given as a file: NAME_FILE=/run/secrets/x sets NAME.
# Airflow's own secrets need none of this: AIRFLOW__SECTION__KEY_CMD="cat /run/secrets/x".
set -euo pipefail

for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY MLFLOW_BACKEND_STORE_URI WINDSOCK_STUDIES WINDSOCK_REDIS; do
    from="${name}_FILE"
    if [ -n "${!from:-}" ]; then
        if [ ! -r "${!from}" ]; then
            echo "entrypoint: $from names ${!from}, which user $(id -u) cannot read" >&2
            exit 64
        fi
        export "$name=$(<"${!from}")"
        unset "$from"
    fi
done

case ${1:-} in
    api-server | scheduler | dag-processor | triggerer | celery | db | standalone | tasks | dags | jobs | config | info | \
        connections | variables | pools | users | version)
        set -- airflow "$@"
        ;;
esac
exec "$@"
