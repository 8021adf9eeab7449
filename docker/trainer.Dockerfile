# The trainer: Windsock's core with LightGBM, torch and Optuna. No Airflow, no Feast, no pip, no shell tools of ours.
# Build it from the repository's root: `scripts/images.sh trainer`, or
#   docker build -f docker/trainer.Dockerfile -t windsock/trainer:dev .
#   docker build -f docker/trainer.Dockerfile -t windsock/trainer:dev-cuda --build-arg VARIANT=cuda .
# docs/deploy.md tells what the arguments, the named context `wheels` and the secrets `uv` and `ca` are for.

# A Debian with Python 3.11 and glibc. By digest: the same bytes for everybody, until a reviewed commit moves it.
ARG BASE=docker.io/library/python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
# An image that holds the static binary /uv; it never becomes part of the result.
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

FROM libraries AS code
COPY include/windsock /opt/windsock/include/windsock
RUN ["/opt/windsock/venv/bin/python", "-m", "compileall", "-q", "-j", "2", "/opt/windsock/include"]

FROM libraries
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). pip goes, if the base has one, and so do the
# empty places that the layer before mounted something at.
RUN groupadd --gid 10001 windsock \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin windsock \
    && rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
        /usr/local/bin/uv /wheels /etc/uv /root/.cache
COPY --from=code /opt/windsock/include /opt/windsock/include
# Nothing is written outside /tmp. One OpenMP runtime for LightGBM and torch (see install.sh), whose threads sleep
# while they wait.
ENV PATH=/opt/windsock/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/windsock/include \
    LD_LIBRARY_PATH=/opt/windsock/venv/lib/openmp \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=passive \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    GIT_PYTHON_REFRESH=quiet \
    DO_NOT_TRACK=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Last, so that a new commit costs no layer. WINDSOCK_COMMIT is what lineage records where there is no git.
ARG VERSION=dev
ARG REVISION=unknown
ENV WINDSOCK_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="windsock/trainer" \
      org.opencontainers.image.description="Windsock's built-in trainer: LightGBM and torch, by the trainer contract" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /tmp
# checkov:skip=CKV_DOCKER_2: a batch job: Kubernetes and Airflow look at its exit code, there is nothing to ask before
ENTRYPOINT ["python", "-m", "windsock.trainers.trainer"]
