#!/usr/bin/env bash
# Runs tests on the oldest and the newest allowed versions of everything, each in an environment of its own.
#
#   tests/support/versions.sh [--slow] [PYTHON:oldest|PYTHON:newest ...] [-- words for pytest]
#
# Without arguments: 3.11:oldest 3.12:newest 3.13:oldest 3.13:newest, and the default tests; with --slow the slower ones
# too. `oldest` are the lower bounds in pyproject.toml, `newest` is what an installation of today gets. The tools of the
# tests are of today.
set -euo pipefail
cd "$(dirname "$0")/../.."

uv="$PWD/.venv/bin/uv"
export UV_SYSTEM_CERTS=1 # trust whom the machine trusts, as pip does
export UV_COMPILE_BYTECODE=1 # as pip does: hundreds of processes start in the tests
work="$(mktemp -d "${TMPDIR:-/tmp}/prefect-together-versions-XXXXXX")"
trap 'rm -rf "$work"' EXIT
extras=(--extra excel --extra parquet --extra postgres --extra s3)
tools=(pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis "moto[server]" opentelemetry-sdk build playwright uv
    ipykernel nbclient prefect-dask)
parallel=(-n 3 --dist loadfile)

slow=()
if [ "${1:-}" = --slow ]; then
    slow=(-m "not (live or bench or soak)" --timeout 900)
    shift
fi
combinations=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
    combinations+=("$1")
    shift
done
[ $# -gt 0 ] && shift
[ ${#combinations[@]} -gt 0 ] || combinations=(3.11:oldest 3.12:newest 3.13:oldest 3.13:newest)

find_python() {
    local place
    for place in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python "$(command -v "python$1" || true)"; do
        if [ -x "$place" ] && "$place" -c "import venv" 2>/dev/null; then
            echo "$place"
            return
        fi
    done
    echo "no Python $1 here" >&2
    return 1
}

for combination in "${combinations[@]}"; do
    version="${combination%%:*}" age="${combination##*:}"
    python="$(find_python "$version")"
    resolution=highest
    [ "$age" = oldest ] && resolution=lowest-direct
    echo "== Python $version, the $age versions"
    "$uv" pip compile --quiet pyproject.toml "${extras[@]}" --resolution "$resolution" --python "$python" --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$work/$combination.txt"
    grep -E "^(prefect|together|pydantic|pandas|fastapi|sqlalchemy|av)==" "$work/$combination.txt" | paste -sd " "
    "$uv" venv --quiet --python "$python" "$work/venv"
    # The package as it is installed, not the source beside it; warnings of other ages' libraries are not ours.
    "$uv" pip install --quiet --python "$work/venv" --constraints "$work/$combination.txt" \
        ".[excel,parquet,postgres,s3]" "${tools[@]}"
    test=("$work/venv/bin/python" -m pytest -q -p no:cacheprovider --override-ini filterwarnings= "${parallel[@]}")
    "${test[@]}" ${slow[@]+"${slow[@]}"} "$@"
    rm -rf "$work/venv"
done
