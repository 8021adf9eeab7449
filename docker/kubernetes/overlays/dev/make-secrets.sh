#!/usr/bin/env bash
# Makes the secrets of the dev overlay, once: random, readable by you alone, ignored by git. What is there stays.
set -euo pipefail
cd "$(dirname "$0")/secrets"
umask 077

random() { # that many random bytes, as hex
    od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'
}

# The passwords of the databases stand in four files; one of them alone would not fit the others.
if [ ! -e postgresql.env ]; then
    host=windsock-postgresql:5432 airflow=$(random 24) mlflow=$(random 24) studies=$(random 24)
    echo "connection=postgresql+psycopg2://airflow:$airflow@$host/airflow" >airflow-database.env
    echo "MLFLOW_BACKEND_STORE_URI=postgresql://mlflow:$mlflow@$host/mlflow" >mlflow.env
    echo "WINDSOCK_STUDIES=postgresql+psycopg2://studies:$studies@$host/studies" >studies.env
    printf '%s\n' "POSTGRES_PASSWORD=$(random 24)" "AIRFLOW_PASSWORD=$airflow" "MLFLOW_PASSWORD=$mlflow" \
        "STUDIES_PASSWORD=$studies" >postgresql.env
fi
if [ ! -e airflow-keys.env ]; then
    # A Fernet key is 32 random bytes in URL-safe base64.
    fernet=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
    printf '%s\n' "fernet-key=$fernet" "api-secret-key=$(random 32)" "jwt-secret=$(random 64)" >airflow-keys.env
fi
if [ ! -e mlflow-door.env ]; then
    echo "WINDSOCK_MLFLOW_SECRET=$(random 32)" >mlflow-door.env
fi
if [ ! -e airflow-passwords.json ]; then
    printf '{"admin": "%s"}\n' "$(random 12)" >airflow-passwords.json
fi
echo "The password of Airflow's user admin is in $PWD/airflow-passwords.json"
