# What the jobs have in common: environment, a server of their own or a shared one, checkpoints.
# Sourced by the scripts after env.sh; nothing here is specific to a cluster.
# shellcheck shell=bash disable=SC2154  # STAR_* come from env.sh

# Modules, folders and what --export=NONE leaves behind.
prepare_job() {
    # Set by --export=NONE: srun would start its tasks without a PATH.
    unset SLURM_EXPORT_ENV
    # Since Slurm 22.05 srun does not take this over from sbatch.
    export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
    if ((${#STAR_MODULES[@]} > 0)); then
        if ! type module >/dev/null 2>&1; then
            local init
            for init in /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
                # shellcheck disable=SC1090  # the site's own file
                if [[ -r $init ]]; then source "$init"; fi
            done
        fi
        module load "${STAR_MODULES[@]}"
    fi
    if [[ -n $STAR_CUDA_LIBRARIES ]]; then
        export LD_LIBRARY_PATH=$STAR_CUDA_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    fi
    mkdir -p "$STAR_RUNS"
    echo "job ${SLURM_JOB_ID:-none} on $(hostname), restart ${SLURM_RESTART_COUNT:-0}, $(date)"
}

# Prints the address to listen on: loopback for "own", one that other nodes reach for "shared".
listen_address() {
    local address=127.0.0.1
    if [[ $1 == shared ]]; then
        address=${STAR_LISTEN_ADDRESS:-$(getent ahostsv4 "$(hostname -f)" | awk 'NR == 1 { print $1 }')}
        if [[ $address == 127.* ]]; then
            echo "only this node can reach $address: set STAR_LISTEN_ADDRESS in slurm/env.sh" >&2
        fi
    fi
    # Port 0: the system picks a free one, so two jobs on a node never collide.
    echo "${address:?no IPv4 address for this host: set STAR_LISTEN_ADDRESS in slurm/env.sh}:0"
}

# Starts gen-server as a job step in the background. $1: own|shared, $2: folder for its two files.
# Sets STAR_ENDPOINT, STAR_TOKEN and server_pid.
start_server() {
    local folder=$2
    mkdir -p "$folder"
    STAR_ENDPOINT=$folder/endpoint
    STAR_TOKEN=$folder/token
    rm -f "$STAR_ENDPOINT"
    # Other users of the node could reach the port: only holders of the token are answered.
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$STAR_TOKEN")
    srun --ntasks=1 "$STAR_BIN/gen-server" \
        --model "$STAR_MODEL" --checkpoint-root "$STAR_RUNS" \
        --device "$STAR_DEVICE" --dtype "$STAR_PRECISION" \
        --listen "$(listen_address "$1")" --endpoint-file "$STAR_ENDPOINT" \
        --auth-token-file "$STAR_TOKEN" &
    server_pid=$!
}

# Ends the server's step in good order: TERM to srun itself would kill it before it has drained.
stop_server() {
    scancel --signal=TERM "$SLURM_JOB_ID.0" || true
    wait "$server_pid"
}

# Waits until the endpoint file is there; ends the job with a reason where it does not come.
wait_for_server() {
    local waited
    for ((waited = 0; waited < STAR_SERVER_WAIT_S; waited++)); do
        if [[ -s $STAR_ENDPOINT ]]; then
            echo "server: $(<"$STAR_ENDPOINT")"
            return
        fi
        if [[ -n ${server_pid:-} ]] && ! kill -0 "$server_pid" 2>/dev/null; then
            echo "the server ended before it was ready; its messages are in this job's error file" >&2
            exit 1
        fi
        sleep 1
    done
    echo "no server after $STAR_SERVER_WAIT_S s: $STAR_ENDPOINT is missing; is serve.sbatch running?" >&2
    exit 1
}

# $1 = own: a server inside this job, stopped at its end. $1 = shared: the one of serve.sbatch.
use_server() {
    case $1 in
    own)
        start_server own "$STAR_RUNS/server-$SLURM_JOB_ID"
        trap stop_server EXIT
        ;;
    shared)
        STAR_ENDPOINT=$STAR_RUNS/serve/endpoint
        STAR_TOKEN=$STAR_RUNS/serve/token
        ;;
    *)
        echo "usage: sbatch <script> [own|shared], found \"$1\"" >&2
        exit 2
        ;;
    esac
    wait_for_server
}

# Runs a `star` command against the server in use.
star() {
    local command=$1
    shift
    "$STAR_BIN/star" "$command" --server "$STAR_ENDPOINT" --token-file "$STAR_TOKEN" "$@"
}

# Prints the newest complete epoch of a training run, relative to the server's checkpoint root.
# A checkpoint's manifest is written last: without it the folder is not complete.
newest_checkpoint() {
    local newest
    # A run that never began has no folder: find then fails and prints nothing.
    newest=$(find "$STAR_RUNS/$1" -mindepth 2 -maxdepth 2 -path '*/epoch_*/manifest.json' \
        -printf '%h\n' 2>/dev/null | sort -V | tail -n 1) || true
    if [[ -z $newest ]]; then
        echo "no complete epoch_<n> in $STAR_RUNS/$1: run the step sft_$1 first" >&2
        return 1
    fi
    echo "${newest#"$STAR_RUNS"/}"
}
