#!/usr/bin/env bash
# All benchmarks on a machine with a GPU, in at most 8 minutes: jax, torch, transformers and peft,
# no network, no data. Results go into benchmarks/results/latest.json and docs/benchmarks.md.
#
#   bash benchmarks/gpu.sh [python] [options of python -m benchmarks]
#   bash benchmarks/gpu.sh python3 --small    # the same code on toy shapes, on a CPU too
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
[ $# -eq 0 ] || shift
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1

case " $* " in
*" --small "*) exec "$python" -m benchmarks --minutes 7.5 "$@" ;;
esac
# What is missing is an error before any measurement.
XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" - <<'PY'
import jax
import peft
import torch
import transformers

device = jax.devices()[0]
assert device.platform != "cpu", "JAX has no GPU"
assert torch.cuda.is_available(), "torch has no GPU"
print(f"# jax {jax.__version__}, torch {torch.__version__}, {device.device_kind}")
PY
status=0
"$python" -m benchmarks --minutes 7.5 "$@" || status=$?
"$python" -m benchmarks.page
exit "$status"
