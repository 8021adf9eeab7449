#!/bin/bash
# Runs once, when PostgreSQL's volume is empty: a database and a role of its own for each part, closed to the others.
set -euo pipefail

for name in airflow mlflow studies; do
    # psql reads the password itself: on a command line every process of the machine could read it.
    psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --set name="$name" \
        --set file="${SECRETS:-/run/secrets}/postgres_$name" <<'SQL'
\set password `cat :file`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
