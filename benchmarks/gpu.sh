#!/usr/bin/env bash
# The benchmarks of a machine with a GPU, jax, torch, transformers and peft; no network, no data.
# Prints one JSON object per comparison.
#
#   bash benchmarks/gpu.sh [python]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1

"$python" - <<'PY'
import jax
device = jax.devices()[0]
print(f"# jax {jax.__version__} on {device.device_kind} ({device.platform})")
PY
# Missing packages are an error before any measurement.
"$python" -c 'import peft, torch, transformers; assert torch.cuda.is_available(), "torch has no GPU"'

"$python" benchmarks/train_step.py --model t5-base --batch 128 --dtype bfloat16
"$python" benchmarks/train_step.py --model t5-base --batch 128 --dtype bfloat16 --lengths real
"$python" benchmarks/train_step.py --model t5-base --batch 32 --dtype float32
"$python" benchmarks/svgd.py --shape base --batch 32 --dtype bfloat16
"$python" benchmarks/svgd.py --shape base --batch 32 --dtype bfloat16 --particles 50 --rounds 3
"$python" benchmarks/grouping.py --model base --rows 32
"$python" benchmarks/retrieval.py --json
