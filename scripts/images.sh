#!/usr/bin/env bash
# Builds Windsock's images with docker (and buildx) or with buildah; loads them where they run.
#
#   scripts/images.sh [trainer|airflow]... [--cuda] [--tag TAG] [--missing] [--cluster] [--docker]
#
#   (no name)   both images
#   --cuda      torch with CUDA (VARIANT=cuda); the tag gets the suffix -cuda
#   --tag TAG   default: dev
#   --missing   build only what no earlier build has left under this tag
#   --cluster   also put the images into the node of the local cluster that KUBECONFIG names
#   --docker    also put what buildah built into the Docker daemon, for compose
#
# Settings (environment), none needed where Docker Hub and ghcr.io can be reached:
#   WINDSOCK_BASE_IMAGE   another base: any Debian with Python 3.11; or docker-archive:FILE
#   WINDSOCK_UV_IMAGE     another image that holds /uv; `local`: the uv of this machine
#   PIP_FIND_LINKS        a folder of wheels, for instance torch's CPU wheel
#   SSL_CERT_FILE         certificates of a proxy, for the build only
#   UV_CONFIG_FILE        uv.toml with another package index, for the build only (default ~/.config/uv/uv.toml)
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "images: $*" >&2; exit 64; }

images=() tag=dev variant=cpu cluster='' daemon='' keep=''
while [ $# -gt 0 ]; do
    case $1 in
        trainer | airflow) images+=("$1") ;;
        --cuda) variant=cuda ;;
        --tag) tag=${2:?"--tag needs a value"}; shift ;;
        --missing) keep=1 ;;
        --cluster) cluster=1 ;;
        --docker) daemon=1 ;;
        -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) fail "'$1' is neither an image (trainer, airflow) nor an option; see --help" ;;
    esac
    shift
done
[ ${#images[@]} -gt 0 ] || images=(trainer airflow)
[ "$variant" = cpu ] || tag="$tag-cuda"

# --- What builds, and what it starts from
# A cluster made for tests keeps its images and its tools beside its kubeconfig; such a machine often has no registry.
lab=$(dirname "${KUBECONFIG:-/none/none}")
base=${WINDSOCK_BASE_IMAGE:-} uv=${WINDSOCK_UV_IMAGE:-}
if [ -z "$base" ] && [ -f "$lab/images/debian-python.tar" ]; then
    base=docker-archive:$lab/images/debian-python.tar uv=${uv:-local}
fi

# The Dockerfiles mount files and caches while they build: Docker does that by BuildKit, whose client is buildx.
docker_answers() { docker info >/dev/null 2>&1; }
if docker_answers && docker buildx version >/dev/null 2>&1; then
    builder=docker
elif command -v buildah >/dev/null; then
    builder=buildah
elif docker_answers; then
    fail "Docker is here without buildx, which builds the images. Install it (docker-buildx-plugin), or: apt-get install buildah"
else
    fail "neither a Docker daemon nor buildah is here. Install Docker, or: apt-get install buildah"
fi

# Print the name of an image in the builder's own storage, loaded from an archive.
from_archive() {
    if [ "$builder" = docker ]; then
        docker load --quiet --input "${1#docker-archive:}" | sed 's/^Loaded image[^:]*: //'
    else
        buildah pull --quiet "$1"
    fi
}

arguments=(--build-arg "VARIANT=$variant" --build-arg "VERSION=$tag")
arguments+=(--build-arg "REVISION=${WINDSOCK_COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}")
case $base in
    '') ;;
    docker-archive:*) arguments+=(--build-arg "BASE=$(from_archive "$base")") ;;
    *) arguments+=(--build-arg "BASE=$base") ;;
esac
case $uv in
    '') ;;
    local) # one static file, in a folder that takes the place of the image
        binary=$(command -v .uv/bin/uv || command -v uv) || fail "no uv here to build with; run scripts/setup.sh"
        folder=$(mktemp -d)
        trap 'rm -r "$folder"' EXIT
        cp "$binary" "$folder/uv"
        arguments+=(--build-arg UV=scratch --build-context "uv=$folder")
        ;;
    *) arguments+=(--build-arg "UV=$uv") ;;
esac
wheels=${PIP_FIND_LINKS:-}
wheels=${wheels%% *}
if [ "$variant" = cpu ] && [ -d "${wheels:-/none}" ]; then arguments+=(--build-context "wheels=$wheels"); fi
ca=${SSL_CERT_FILE:-/none}
if [ -f "$ca" ]; then arguments+=(--secret "id=ca,src=$ca"); fi
config=${UV_CONFIG_FILE:-${HOME:-/none}/.config/uv/uv.toml}
if [ -f "$config" ]; then arguments+=(--secret "id=uv,src=$config"); fi

is_built() {
    if [ "$builder" = docker ]; then
        docker image inspect "windsock/$1:$tag" >/dev/null 2>&1
    else
        buildah inspect --type image "localhost/windsock/$1:$tag" >/dev/null 2>&1
    fi
}

build() {
    if [ "$builder" = docker ]; then
        docker build "${arguments[@]}" --file "docker/$1.Dockerfile" --tag "windsock/$1:$tag" .
    else
        # Root in a container cannot make namespaces of its own; chroot isolates enough for a build of our own files.
        local isolation=()
        [ "$(id -u)" != 0 ] || isolation=(--isolation chroot)
        # Whatever is named by id or was just made must not be looked for in a registry.
        [ -z "$base" ] || isolation+=(--pull-never)
        buildah bud --layers "${isolation[@]}" "${arguments[@]}" \
            --file "docker/$1.Dockerfile" --tag "windsock/$1:$tag" .
    fi
}

# Writes an image as an archive to standard output.
archive() {
    if [ "$builder" = docker ]; then
        docker save "windsock/$1:$tag"
    else
        buildah push --quiet "windsock/$1:$tag" "docker-archive:/dev/stdout:windsock/$1:$tag"
    fi
}

# Puts an image into the node's own store, so that the cluster runs it without a registry.
load_into_cluster() {
    local context file
    context=$(kubectl config current-context 2>/dev/null || true)
    if [ -f "$lab/env.sh" ]; then
        # shellcheck source=/dev/null  # the cluster's own tools, in a shell of their own
        archive "$1" | (set +u && . "$lab/env.sh" && ctr -n k8s.io images import - >/dev/null)
    else
        # A file: a pipe could be read once only, and a cluster may have several nodes.
        file=$(mktemp --suffix=.tar)
        archive "$1" >"$file"
        case $context in
            kind-*) kind load image-archive --name "${context#kind-}" "$file" ;;
            minikube) minikube image load "$file" ;;
            *) rm "$file" && fail "the cluster '$context' is not a local one: push windsock/$1:$tag to its registry" ;;
        esac
        rm "$file"
    fi
}

load_into_docker() {
    [ "$builder" != docker ] || return 0 # it built the image
    docker_answers || fail "no Docker daemon answers that windsock/$1:$tag could be loaded into"
    archive "$1" | docker load --quiet >/dev/null
}

for image in "${images[@]}"; do
    started=$SECONDS
    if [ -n "$keep" ] && is_built "$image"; then
        echo "images: windsock/$image:$tag was built before"
    else
        build "$image"
        echo "images: windsock/$image:$tag built in $((SECONDS - started)) s"
    fi
    if [ -n "$cluster" ]; then
        started=$SECONDS
        load_into_cluster "$image"
        echo "images: windsock/$image:$tag loaded into the cluster in $((SECONDS - started)) s"
    fi
    if [ -n "$daemon" ]; then
        started=$SECONDS
        load_into_docker "$image"
        echo "images: windsock/$image:$tag loaded into Docker in $((SECONDS - started)) s"
    fi
done
