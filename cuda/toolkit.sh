#!/usr/bin/env bash
# Lays out what compiles CUDA C++ (nvcc 13.0 with its headers) in a folder, from PyPI: no root, no GPU, no driver, about
# 105 MB to download. Nothing to link against: our programs load the driver and cuBLASLt when they start.
#
# usage: cuda/toolkit.sh DIR        then: export CUDA_HOME=DIR
set -euo pipefail

# 13.0 on purpose: the PTX of a newer nvcc needs a newer driver than many clusters have.
packages=(
    nvidia-cuda-nvcc==13.0.88    # nvcc, cudafe++, ptxas, fatbinary
    nvidia-nvvm==13.0.88         # cicc, libdevice
    nvidia-cuda-crt==13.0.88     # include/crt
    nvidia-cuda-runtime==13.0.96 # cuda_runtime.h, cuda_bf16.h, cuda_fp8.h
    nvidia-cuda-cccl==13.0.85    # nv/target, which those include
)
stamp="${packages[*]}"

fail() {
    echo "cuda/toolkit.sh: $*" >&2
    exit 1
}

(($# == 1)) || fail "usage: cuda/toolkit.sh DIR"
target=$1
if [[ -e $target/packages.txt && $(<"$target/packages.txt") == "$stamp" ]]; then
    echo "$target is complete"
    exit 0
fi
[[ ! -e $target || -e $target/packages.txt || -z $(ls -A "$target") ]] ||
    fail "$target is there and not from this script: name an empty or new folder"
command -v g++ >/dev/null || fail "nvcc needs g++ (apt-get install g++)"
[[ $(uname -s) == Linux ]] || fail "the packages are for Linux"
command -v python3 >/dev/null || fail "needs python3 with pip (apt-get install python3-pip)"

mkdir -p "$(dirname "$target")"
work=$(mktemp -d -p "$(dirname "$target")" .toolkit-XXXXXX)
trap 'rm -rf "$work"' EXIT
python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$work/venv" >/dev/null 2>&1 ||
        fail "python3 has neither pip nor venv (apt-get install python3-pip, or python3-venv)"
    python=$work/venv/bin/python3
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
"$python" -m pip install -q --no-deps --no-compile --only-binary=:all: --retries 1 \
    --target "$work/site" "${packages[@]}" ||
    fail "pip could not install ${packages[*]}: is PyPI, or a mirror of it, within reach?"

# The wheels share one tree, which is what CUDA_HOME means.
tree=$work/site/nvidia/cu13
rm -rf "$tree/lib"
echo "$stamp" >"$tree/packages.txt"
chmod +x "$tree"/bin/* "$tree/nvvm/bin/cicc"

cat >"$work/probe.cu" <<'CUDA'
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void probe(const __nv_bfloat16 *in, __nv_fp8_e4m3 *out) {
    out[threadIdx.x] = __nv_fp8_e4m3(__bfloat162float(in[threadIdx.x]));
}
CUDA
"$tree/bin/nvcc" -fatbin -std=c++17 -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90 \
    -gencode=arch=compute_90,code=compute_90 -o "$work/probe.fatbin" "$work/probe.cu" ||
    fail "nvcc is there but does not compile (see above)"

rm -rf "$target"
mv "$tree" "$target"
"$target/bin/nvcc" --version | sed -n 4p
echo "export CUDA_HOME=$(realpath "$target")"
