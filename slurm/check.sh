#!/usr/bin/env bash
# Checks the scripts of this folder: syntax, the directives every step must have, shellcheck where it is
# installed, and `sbatch --test-only` where a SLURM controller answers.
set -euo pipefail
cd "$(dirname "$0")/.."

steps=(serve zero_shot bootstrap sft_vanilla sft_star inference experiment)
directives=(job-name account partition qos nodes cpus-per-task mem gres time output error mail-type)

for script in slurm/*.sh slurm/*.sbatch; do
    bash -n "$script"
done

for step in "${steps[@]}"; do
    for directive in "${directives[@]}"; do
        grep -q "^#SBATCH --$directive=" "slurm/$step.sbatch" ||
            { echo "slurm/$step.sbatch: no #SBATCH --$directive" >&2; exit 1; }
    done
    grep -qx "#SBATCH --export=NONE" "slurm/$step.sbatch" ||
        { echo "slurm/$step.sbatch: no #SBATCH --export=NONE" >&2; exit 1; }
done
echo "syntax and directives: ok"

if command -v shellcheck >/dev/null; then
    shellcheck --external-sources --source-path=. slurm/*.sh slurm/*.sbatch
    echo "shellcheck: ok"
else
    echo "SKIPPED: shellcheck is not installed"
fi

if ! command -v sbatch >/dev/null; then
    echo "SKIPPED: sbatch --test-only, no SLURM here"
elif ! timeout 20 sinfo --noheader >/dev/null 2>&1; then
    echo "SKIPPED: sbatch --test-only, no SLURM controller answers"
else
    for step in "${steps[@]}"; do
        slurm/submit.sh "$step" -- --test-only
    done
    for step in zero_shot bootstrap inference; do
        slurm/submit.sh "$step" shared -- --test-only
    done
    echo "sbatch --test-only: ok"
fi
