#!/usr/bin/env bash
# What this project does on a GPU, measured by one command in under nine minutes, without a network: see README.md.
#
# bench/gpu.sh                      everything, with the programs of cuda/build.sh in target/cuda-bin
# bench/gpu.sh --only kernels,decode
# bench/gpu.sh --emulated           a smoke test of this script on the software GPU: shape tiny; its times mean nothing
set -euo pipefail
bench=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
# cuBLASLt comes with PyTorch where no CUDA toolkit is installed.
libraries=$("$python" -c '
import glob, importlib.util, os
spec = importlib.util.find_spec("torch")
site = os.path.dirname(os.path.dirname(spec.origin)) if spec else ""
found = glob.glob(f"{site}/nvidia/*/lib/libcublasLt.so.*") if site else []
print(os.path.dirname(found[0]) if found else "")')
if [[ -n $libraries ]]; then
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
PYTHONUNBUFFERED=1 PYTHONPATH=$bench exec "$python" -m suite.gpu "$@"
