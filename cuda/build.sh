#!/usr/bin/env bash
# Builds the programs for a GPU machine: gen-server and trainer with their kernels, star, and `kernel-tests`, the tests
# of the kernels as one program that needs no cargo. They start anywhere: driver and cuBLASLt are looked for when a GPU
# is asked for. Needs no GPU, but nvcc: $NVCC, on the PATH, in $CUDA_HOME/bin or in /usr/local/cuda/bin.
#
# usage: cuda/build.sh [--out DIR] [--toolkit-from-pypi] [--xz]
#   --out DIR              default target/cuda-bin
#   --toolkit-from-pypi    without an nvcc: lay one out in target/cuda-toolkit first (105 MB to download)
#   --xz                   pack each program beside itself, for a slow way to the machine
set -euo pipefail
cd "$(dirname "$0")/.."

out=target/cuda-bin
from_pypi=
pack=
while (($# > 0)); do
    case $1 in
    --out)
        out=${2:?--out DIR}
        shift
        ;;
    --toolkit-from-pypi) from_pypi=yes ;;
    --xz) pack=yes ;;
    *)
        sed -n '/^# usage/,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift
done

if [[ -n $from_pypi ]]; then
    cuda/toolkit.sh target/cuda-toolkit
    NVCC=$PWD/target/cuda-toolkit/bin/nvcc
    export NVCC
fi

# Runs cargo with these arguments; prints each program that it made as "NAME PATH".
built() {
    cargo "$@" --release --locked --message-format=json-render-diagnostics |
        python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["executable"]:
        print(message["target"]["name"], message["executable"])'
}

# $1: a program's name, $2: what `built` printed, $3: its name here. Renamed into place: the old one may be running.
install_program() {
    local path
    path=$(awk -v name="$1" '$1 == name { print $2 }' <<<"$2")
    [[ -n $path ]] || { echo "cuda/build.sh: cargo built no program $1" >&2; exit 1; }
    strip -o "$out/$3.new" "$path"
    mv "$out/$3.new" "$out/$3"
}

mkdir -p "$out"
programs=$(built build -p gen-server -p trainer -p client --bins \
    --features gen-server/cuda,trainer/cuda)
for program in gen-server trainer star; do
    install_program "$program" "$programs" "$program"
done
tests=$(built test -p cuda --features image --test suite --no-run)
install_program suite "$tests" kernel-tests

git describe --always --dirty >"$out/commit" 2>/dev/null || echo unknown >"$out/commit"
for program in gen-server trainer star kernel-tests; do
    if [[ -n $pack ]]; then xz -9 -T0 -f -k "$out/$program"; fi
    size=$(du -b "$out/$program" | awk '{printf "%.1f MB", $1 / 1e6}')
    if [[ -n $pack ]]; then size+=$(du -b "$out/$program.xz" | awk '{printf ", packed %.1f MB", $1 / 1e6}'); fi
    echo "$out/$program: $size"
done
