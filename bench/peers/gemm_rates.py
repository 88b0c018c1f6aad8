"""gemm_rates.py THREADS: the rate of y = x Wᵀ through torch (MKL for f32, oneDNN for bf16), one JSON line each."""

import json
import os
import sys
import time

THREADS = int(sys.argv[1])
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(THREADS)
import torch  # noqa: E402 (after the environment)

torch.set_num_threads(THREADS)
# Rows of x; in and out are those of the widest product of the shape `1b`.
ROWS, IN, OUT = [1, 8, 32, 64, 256, 2048], 2048, 8192
# More weights than the caches hold, taken in turn, as a model does.
WEIGHT_BYTES = 256 << 20
SECONDS = 0.25


def rate(dtype, rows):
    count = max(1, WEIGHT_BYTES // (IN * OUT * dtype.itemsize))
    weights = [torch.randn(OUT, IN).to(dtype) for _ in range(count)]
    x = torch.randn(rows, IN).to(dtype)
    for weight in weights[:2]:
        torch.nn.functional.linear(x, weight)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        for weight in weights:
            torch.nn.functional.linear(x, weight)
        best = min(best, (time.perf_counter() - start) / count)
    return 2e-9 * rows * IN * OUT / best


with torch.inference_mode():
    for dtype in (torch.float32, torch.bfloat16):
        for rows in ROWS:
            print(
                json.dumps(
                    {
                        "what": f"{str(dtype)[6:]} product, {rows} rows, {IN} to {OUT}",
                        "value": round(rate(dtype, rows), 1),
                        "unit": "GFLOP/s",
                        "by": f"torch {torch.__version__}",
                    }
                ),
                flush=True,
            )
