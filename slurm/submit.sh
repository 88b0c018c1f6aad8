#!/usr/bin/env bash
# Submits a step, or all of them as a chain, with the settings of env.sh. See README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=slurm/env.sh
source slurm/env.sh

usage() {
    cat >&2 <<'USAGE'
usage: slurm/submit.sh STEP [own|shared] [-- SBATCH OPTIONS...]
       slurm/submit.sh chain             one GPU at a time, each job with its own server
       slurm/submit.sh chain-shared      one server job, the others talk to it
STEP: serve zero_shot bootstrap sft_vanilla sft_star inference experiment
USAGE
    exit 2
}

# The cluster's settings as options: on the command line they win over the directives.
options() {
    [[ -z $STAR_ACCOUNT ]] || echo "--account=$STAR_ACCOUNT"
    [[ -z $STAR_QOS ]] || echo "--qos=$STAR_QOS"
    [[ -z $STAR_MAIL_USER ]] || echo "--mail-user=$STAR_MAIL_USER"
    local partition=$STAR_PARTITION
    # A job that only talks to a server holds no GPU and little else.
    if [[ $1 == shared ]]; then
        printf '%s\n' --gres=none --cpus-per-task=2 --mem=8G
        partition=${STAR_CPU_PARTITION:-$partition}
    fi
    [[ -z $partition ]] || echo "--partition=$partition"
}

# Prints the job's id. $1: step, $2: own|shared|"" (argument of the script), rest: for sbatch.
submit() {
    local step=$1 mode=$2 settings
    shift 2
    # Jobs that wait for a server must not find the address that a killed one left behind.
    if [[ $step == serve ]]; then rm -f "$STAR_RUNS/serve/endpoint"; fi
    mapfile -t settings < <(options "${mode:-own}")
    sbatch --parsable "${settings[@]}" "$@" "slurm/$step.sbatch" ${mode:+"$mode"}
}

# After a job that failed this one is cancelled; without the option it would wait for ever.
after() {
    echo "--dependency=afterok:$1"
    echo "--kill-on-invalid-dep=yes"
}

chain() {
    local zero_shot bootstrap vanilla tuned inference needs
    zero_shot=$(submit zero_shot own)
    mapfile -t needs < <(after "$zero_shot")
    bootstrap=$(submit bootstrap own "${needs[@]}")
    vanilla=$(submit sft_vanilla "" "${needs[@]}")
    mapfile -t needs < <(after "$bootstrap")
    tuned=$(submit sft_star "" "${needs[@]}")
    mapfile -t needs < <(after "$vanilla:$tuned")
    inference=$(submit inference own "${needs[@]}")
    echo "zero_shot $zero_shot, bootstrap $bootstrap, sft_vanilla $vanilla, sft_star $tuned, inference $inference"
}

chain_shared() {
    local serve zero_shot bootstrap vanilla tuned inference needs
    serve=$(submit serve "")
    zero_shot=$(submit zero_shot shared --dependency="after:$serve")
    mapfile -t needs < <(after "$zero_shot")
    bootstrap=$(submit bootstrap shared "${needs[@]}")
    vanilla=$(submit sft_vanilla "" "${needs[@]}")
    mapfile -t needs < <(after "$bootstrap")
    tuned=$(submit sft_star "" "${needs[@]}")
    mapfile -t needs < <(after "$vanilla:$tuned")
    inference=$(submit inference shared "${needs[@]}")
    # Whatever became of the others: the server's GPU is given back.
    mapfile -t needs < <(options shared)
    sbatch --parsable "${needs[@]}" --dependency="afterany:$inference" --job-name=star-stop \
        --time=00:05:00 --output=slurm/logs/%x-%j.out --export=NONE \
        --wrap="scancel --signal=TERM $serve.0 || scancel $serve" >/dev/null
    echo "serve $serve, zero_shot $zero_shot, bootstrap $bootstrap, sft_vanilla $vanilla, sft_star $tuned, inference $inference"
}

(($# > 0)) || usage
step=$1
shift
case $step in
chain) chain ;;
chain-shared) chain_shared ;;
serve | zero_shot | bootstrap | sft_vanilla | sft_star | inference | experiment)
    mode=
    if [[ ${1:-} == own || ${1:-} == shared ]]; then
        mode=$1
        shift
    fi
    if [[ ${1:-} == -- ]]; then shift; elif (($# > 0)); then usage; fi
    submit "$step" "$mode" "$@"
    ;;
*) usage ;;
esac
