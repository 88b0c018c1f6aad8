#!/usr/bin/env bash
# Makes everything in this folder again: the question files and the base model. Two cores, no GPU,
# no network; measured times are in README.md. The work folder can be thrown away afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=${1:-target/demo-base}
mkdir -p "$work"

cargo run --release -p data --example demo_data -- splits data/demo
cargo run --release -p data --example demo_data -- corpus --documents 200000 "$work/corpus.jsonl"

# 1.3 M parameters see 20 M tokens once. The tokenizer is trained on the same text.
cargo run --release -p trainer -- pretrain \
    --text "$work/corpus.jsonl" --vocab-size 768 \
    --hidden-size 128 --num-layers 6 --num-heads 4 --num-kv-heads 2 --intermediate-size 384 \
    --tokens 20000000 --batch-tokens 8192 \
    --lr 4e-3 --schedule cosine --warmup-steps 60 --min-lr-ratio 0.05 \
    --save-dtype bf16 --seed 0 --out "$work/pretrain"

rm -rf data/demo/model
cp -r "$work/pretrain/model" data/demo/model
echo "data/demo/model is new: cargo demo shows what it can do"
