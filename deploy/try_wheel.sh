#!/bin/bash
# Installs a wheel into a new environment, with no compiler in reach, and tries it in an empty folder. Needs a network.
#
#   deploy/try_wheel.sh dist/kg4d-*-manylinux*.whl [python3.12]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wheel=$(realpath "$1")
work=$(mktemp -d)
trap 'PATH=/usr/bin:/bin; rm -rf "$work"' EXIT
"${2:-python3}" -m venv "$work/env"
mkdir "$work/empty"
cd "$work/empty"
constraints=$here/../constraints.txt
torch=$(grep '^torch==' "$constraints")
export PATH=$work/env/bin
python -m pip install --quiet -c "$constraints" "$torch"  # first and alone, as in `make env`
python -m pip install --quiet -c "$constraints" "$wheel"
python "$here/try_installed.py"
