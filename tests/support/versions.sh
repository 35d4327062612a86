#!/usr/bin/env bash
# Runs tests on the oldest and the newest allowed versions of everything, each in an environment of its own.
#
#   tests/support/versions.sh [PYTHON:oldest|PYTHON:newest ...] [-- words for pytest]
#
# Without arguments: 3.11:oldest 3.12:newest 3.13:oldest 3.13:newest, and the default tests. `oldest` are the lower
# bounds in pyproject.toml, `newest` is what an installation of today gets. The tools of the tests are of today.
set -euo pipefail
cd "$(dirname "$0")/../.."

uv="$PWD/.venv/bin/uv"
export UV_SYSTEM_CERTS=1 # trust whom the machine trusts, as pip does
work="$(mktemp -d "${TMPDIR:-/tmp}/prefect-together-versions-XXXXXX")"
trap 'rm -rf "$work"' EXIT
tools=(pytest pytest-asyncio pytest-timeout hypothesis opentelemetry-sdk build playwright)

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
    "$uv" pip compile --quiet pyproject.toml --resolution "$resolution" --python "$python" --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --output-file "$work/$combination.txt"
    grep -E "^(prefect|together|pydantic|pandas|fastapi|sqlalchemy)==" "$work/$combination.txt" | paste -sd " "
    "$uv" venv --quiet --python "$python" "$work/venv"
    "$uv" pip install --quiet --python "$work/venv" --constraints "$work/$combination.txt" . "${tools[@]}"
    # The package as it is installed, not the source beside it; warnings of other ages' libraries are not ours.
    "$work/venv/bin/python" -m pytest -q -p no:cacheprovider --override-ini filterwarnings= "$@"
    rm -rf "$work/venv"
done
