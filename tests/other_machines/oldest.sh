#!/usr/bin/env bash
# The tests on the lowest declared version of every dependency, in an environment of its own: oldest.sh PYTHON.
#
# uv proves that all lowest versions can be had together. The tests then run on the torch of constraints.txt, since the
# lowest torch is gigabytes of CUDA on Linux; TORCH=torch==2.6 takes it all the same. Warnings of old libraries are no
# errors here.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
oldest=build/oldest
torch=${TORCH:-$(grep '^torch==' constraints.txt)}

"$python" -m venv --clear "$oldest"
"$oldest/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$oldest/bin/python" - > "$oldest/floors.txt" <<'EOF'
import re, tomllib

for text in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    print(re.sub(r">=([\d.]+).*", r"==\1", text))
EOF
"$oldest/bin/uv" pip compile --quiet --constraint "$oldest/floors.txt" pyproject.toml --output-file "$oldest/resolved.txt"
sed "s/^torch==.*/$torch/" "$oldest/floors.txt" > "$oldest/tested.txt"
"$oldest/bin/python" -m pip install --quiet --no-compile -c "$oldest/tested.txt" -e . \
    beartype hypothesis ipykernel ipywidgets pytest pytest-xdist pyyaml
"$oldest/bin/python" -m pytest -m "not slow" -n auto -o filterwarnings= tests/training tests/interp tests/analyses \
    tests/truth tests/test_cli.py tests/test_publication.py
