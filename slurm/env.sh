# Everything that differs between clusters, and nothing else. Sourced by submit.sh on the login node and
# by every job. Edit the values; the scripts stay as they are.
# shellcheck shell=bash disable=SC2034  # the variables are read by the scripts that source this file

# --- SLURM: these win over the directives in the scripts. Empty: the directive stands.
STAR_ACCOUNT=
STAR_PARTITION=gpu
STAR_QOS=
# Partition for jobs that only talk to a running server. Empty: the same one.
STAR_CPU_PARTITION=
# Where to send mail. Empty: to the submitting user.
STAR_MAIL_USER=

# --- Software: modules to load in each job, such as (gcc/13 cuda/13.0).
STAR_MODULES=()

# --- Paths: seen by all nodes under the same name.
STAR_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Programs of cuda/build.sh; those of `cargo build --release` (target/release) compute on a CPU only.
STAR_BIN=$STAR_ROOT/target/cuda-bin
# Folder of libcublasLt.so.13, where no module brings it: of PyTorch or of `pip install nvidia-cublas`, such as
# .../site-packages/nvidia/cu13/lib. Empty: the system's.
STAR_CUDA_LIBRARIES=
STAR_RUNS=$STAR_ROOT/runs/slurm
# The base model: a folder in Hugging Face layout.
STAR_MODEL=$STAR_ROOT/models/Llama-3.2-3B-Instruct
STAR_TRAIN=$STAR_ROOT/gsm8k/train.jsonl
STAR_TEST=$STAR_ROOT/gsm8k/test.jsonl

# --- Computing.
# What gen-server and trainer compute on (their --device): cuda or cpu.
STAR_DEVICE=cuda
# What they compute in (--dtype of the server, --precision of the trainer); `star run` takes what suits the device.
STAR_PRECISION=bf16

# --- Experiment: flags of `star run`. Full fine-tuning of a 3B model beside its server takes a GPU of more than 80 GB;
# on a smaller one add --lr 2e-4 --trainer-args "--method lora --lora-rank 16".
STAR_EXPERIMENT=(--iterations 4)

# --- Server.
# IP address of the node that other nodes can reach. Empty: the first one that its host name has.
STAR_LISTEN_ADDRESS=
# How long a job waits for a server to be ready, in seconds. Loading 6 GB from a busy file system is slow.
STAR_SERVER_WAIT_S=1800
