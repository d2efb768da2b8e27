#!/bin/sh
# Pin every dependency with its hashes, for all platforms, without naming where they come from.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
pin() {
    out=$1
    shift
    "$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --python-version 3.11 --output-file "$out" "$@"
}
pin requirements.lock --group setup pyproject.toml
pin requirements-dev.lock --group setup --group dev --extra train --extra remote --constraint requirements.lock pyproject.toml
pin requirements-bench.lock --group bench --constraint requirements-dev.lock pyproject.toml
