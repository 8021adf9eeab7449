#!/usr/bin/env bash
# Makes what docker/compose.yaml needs and no file may hold: random secrets, and compose.env that says where they are.
#
#   docker/make-env.sh [FOLDER]     default: var/compose (git and image builds leave var/ out)
#
# POSTGRES and REDIS, each HOST:PORT, lead to servers of your own instead of compose's (docs/deploy.md).
#
# Run it again after an update: what is there is kept, what is missing is made.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-var/compose}
umask 077
mkdir -p "$folder/secrets"
chmod 700 "$folder" "$folder/secrets"

# keep NAME [CONTENT-COMMAND...]: one secret, one file. Containers run as different users and Compose mounts files as
# they are, so the files themselves are readable; nobody but you can reach them, as the folder is 0700.
keep() {
    local name=$1 file="$folder/secrets/$1"
    shift
    if [ ! -s "$file" ]; then
        "$@" >"$file.part"
        chmod 444 "$file.part"
        mv "$file.part" "$file"
        echo "make-env: made secrets/$name"
    fi
}
# Hexadecimal after a letter: nothing to quote in a URL, in SQL or in redis.conf, and never taken for a number.
secret() { echo -n s && od -An -v -N "${1:-24}" -t x1 /dev/urandom | tr -d ' \n'; }
value() { cat "$folder/secrets/$1"; }
url() { echo -n "postgresql+psycopg2://$1:$(value "postgres_$1")@${POSTGRES:-postgres:5432}/$1"; }
key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; } # Fernet wants the padding

keep postgres_admin secret
for database in airflow mlflow studies; do
    keep "postgres_$database" secret
    keep "url_$database" url "$database"
done
keep redis_password secret
keep redis_conf echo "requirepass $(value redis_password)"
keep redis_url echo -n "${REDIS:-redis:6379},db=0,password=$(value redis_password)"
keep s3_access_key secret 10
keep s3_secret_key secret 32
keep mlflow_secret secret 32
keep metrics_token secret 24 # what Prometheus shows at /windsock/metrics
keep airflow_fernet key
keep airflow_jwt secret 64
keep airflow_api secret 32
keep airflow_admin secret 18
keep airflow_passwords echo "{\"admin\": \"$(value airflow_admin)\"}"
# Empty is fine: then alerts go to the log only. Fill it with a bot token of Slack's.
[ -e "$folder/secrets/slack_token" ] || { : >"$folder/secrets/slack_token" && chmod 444 "$folder/secrets/slack_token"; }

file="$folder/compose.env"
if [ ! -e "$file" ]; then
    sed "s#^WINDSOCK_SECRETS=.*#WINDSOCK_SECRETS=$(cd "$folder/secrets" && pwd)#" docker/compose.env.example >"$file"
    echo "make-env: made $file"
fi
chmod 600 "$file"
echo "make-env: docker compose --env-file $file --file docker/compose.yaml up --detach --wait"
echo "make-env: then http://127.0.0.1:8080, user admin, password in $folder/secrets/airflow_admin"
