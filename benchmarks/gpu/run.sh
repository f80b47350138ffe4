#!/bin/sh
# Everything that only a GPU can tell, in one call of at most ten minutes; one table, last.
#
#   benchmarks/gpu/run.sh [options of benchmarks.gpu]     # --out FOLDER, --device cpu --small
#
# A machine that has torch, torchvision, timm and transformers, but no way to a package index, gets
# the rest as wheels (about 52 MB): WHEELS=FOLDER names them, and where pip works
#
#   python -m benchmarks.gpu.wheels FOLDER --python 3.12
#
# makes them. GRPO also needs scipy, pandas, pyarrow, peft and accelerate on the machine; without
# them it is skipped by name.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
packages=
if [ -n "${WHEELS:-}" ]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" \
        "$WHEELS"/*.whl
fi
export PYTHONPATH="$PWD:$PWD/agents${packages:+:$packages}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
# A little longer than the program's own --seconds: it ends by itself, and prints its table.
timeout --kill-after=5 590 "$PYTHON" -m benchmarks.gpu "$@"
