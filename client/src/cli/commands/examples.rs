//! What `--help` shows below the flags: commands to copy.

pub(crate) const STAR: &str = "\
Examples:
  cargo demo                                    the whole loop in minutes, on a CPU
  star eval --dataset test.jsonl --out runs/zero-shot
  star bootstrap --dataset train.jsonl --out runs/bootstrap

Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped half-way (the same command goes on).";

#[cfg(feature = "embedded")]
pub(crate) const DEMO: &str = "\
Examples:
  star demo                        zero-shot, bootstrap, both fine-tunings, report
  star demo --out runs/mine        the same; if it is stopped, this command goes on";

#[cfg(feature = "embedded")]
pub(crate) const RUN: &str = "\
Examples:
  Server and trainer on this machine:
    star run --model models/base --train train.jsonl --test test.jsonl --out runs/first

  The loop, up to eight turns, with four samples of each question:
    star run --model models/base --train train.jsonl --test test.jsonl --out runs/loop \\
      --iterations 8 --samples 4

  On one GPU, with adapters:
    star run --model models/base --train train.jsonl --test test.jsonl --out runs/gpu \\
      --device cuda --lr 2e-4 --trainer-args \"--method lora --lora-rank 16\"

  A server that runs elsewhere and shares a file system:
    star run --model models/base --train train.jsonl --test test.jsonl --out runs/first \\
      --server http://node17:50051 --server-checkpoint-root /scratch/checkpoints

The same command goes on where an earlier one was stopped.";

pub(crate) const EVAL: &str = "\
Examples:
  star eval --dataset gsm8k/test.jsonl --out runs/zero-shot
  star eval --server node17:50051 --dataset gsm8k/test.jsonl --prompt marked --out runs/marked
  star eval --server endpoint.json --wait 600 --dataset gsm8k/test.jsonl --out runs/zero-shot
  star eval --preset report --dataset gsm8k/test.jsonl --out runs/as-reported

  As Meta evaluates Llama 3, eight worked examples as turns of a conversation:
    star eval --dataset gsm8k/test.jsonl --prompt llama-8shot-multiturn --out runs/8-shot

  pass@k and majority vote over eight samples of each question:
    star eval --dataset gsm8k/test.jsonl --samples 8 --temperature 0.7 --out runs/maj8

  Hugging Face's files, by path or from its local cache, and a set whose fields have other names:
    star eval --dataset test-00000-of-00001.parquet --out runs/zero-shot
    star eval --dataset openai/gsm8k:main/test --out runs/zero-shot
    star eval --dataset other.jsonl --question-key problem --answer-key final --out runs/other

  Accuracy and the loss of the gold solutions in one result:
    star eval --dataset gsm8k/test.jsonl --loss --out runs/zero-shot

The same command goes on where an earlier one was stopped, and asks nothing twice.";

pub(crate) const PREFLIGHT: &str = "\
Examples:
  star preflight --dataset gsm8k/test.jsonl
  star preflight --dataset gsm8k/train.jsonl --prompt marked --max-tokens 512

Evaluation and bootstrapping look at their first 64 answers in the same way and stop where most have no
answer or are cut. Exit code 1 where such a run with these flags would stop.";

pub(crate) const BOOTSTRAP: &str = "\
Examples:
  star bootstrap --dataset gsm8k/train.jsonl --out runs/bootstrap
  star bootstrap --dataset gsm8k/train.jsonl --out runs/b4 --forward-attempts 4 --hint-attempts 2
  star bootstrap --dataset gsm8k/train.jsonl --out runs/k8 --samples 8 --extra-samples 8 --hint-attempts 0
  star bootstrap --preset report --dataset gsm8k/train.jsonl --out runs/as-reported

Every attempt is kept in attempts.jsonl; accepted.jsonl is a filter over them. The same command goes
on where an earlier one was stopped, also after kill -9, and asks nothing twice.";

pub(crate) const SELECT: &str = "\
Examples:
  star select runs/bootstrap --dataset gsm8k/train.jsonl --out accepted.jsonl --max-hint-share 0.2
  star select runs/b1 runs/b2 --dataset gsm8k/train.jsonl --out both.jsonl --max-per-question 4 \\
    --duplicates equations
  star select runs/bootstrap --dataset gsm8k/train.jsonl --pairs dpo.jsonl --max-pairs 4
  star select runs/samples --dataset unlabelled.jsonl --pseudo-labels labelled.jsonl --min-share 0.6

No server is needed, and the attempts stay as they are.";

pub(crate) const COMPARE: &str = "\
Examples:
  star compare runs/zero-shot runs/star-epoch-4
  star compare runs/zero-shot runs/vanilla runs/star --examples 10
  star compare runs/zero-shot runs/star --json | jq '.[] | select(.worse)'

The first is the untouched model. A WARNING line says where another is below it.";

pub(crate) const SCORE: &str = "\
Examples:
  star score runs/zero-shot/attempts.jsonl
  star score runs/*/attempts.jsonl --rule lm-strict --json
  star score outputs.jsonl --text-key output --gold-key answer --finish-key finish_reason

  Samples of lm-evaluation-harness (--log_samples):
    star score samples_gsm8k_cot_*.jsonl --text-key resps.0.0 --gold-key target \\
      --where filter=strict-match

  Gold answers from a question file, by the question's text, id or place in the file:
    star score outputs.jsonl --text-key output --dataset gsm8k/test.jsonl --question-key question";

pub(crate) const LOSS: &str = "\
Examples:
  star loss --dataset gsm8k/test.jsonl
  star loss --dataset runs/first/data/star_iteration_1.jsonl --max-length 1024 --out train-loss.json
  star loss --dataset gsm8k/test.jsonl --prompt sft --prompt-format plain --limit 100 --json

It is the trainer's validation loss where prompt, prompt format and longest example are the same, and
with --annotations keep where the trainer's lines have annotations.";

pub(crate) const GENERATE: &str = "\
Examples:
  star generate \"Q: What is 17 + 25?\\nA:\"
  star generate --temperature 0.7 --seed 3 \"Once upon a time\"";

pub(crate) const STATUS: &str = "\
Examples:
  star status
  star status --server node17:50051";

pub(crate) const RELOAD: &str = "\
Examples:
  star reload star/epoch_2
  star reload base --server node17:50051";

pub(crate) const BENCH: &str = "\
Examples:
  64 random prompts of 100 tokens at once, 64 tokens each:
    star bench --num-prompts 64 --prompt-tokens 100 --max-tokens 64

  Prompts from a file, 8 at a time, three runs, for a program to read:
    star bench --prompts prompts.jsonl --concurrency 8 --repetitions 3 --json

  Users who come 5 a second, whatever the server does:
    star bench --num-prompts 500 --rate 5 --max-tokens 128

  What a cached head of 500 tokens saves:
    star bench --prompt-tokens 600 --shared-prefix-tokens 500 --concurrency 8

Every answer is greedy and has exactly --max-tokens tokens. Exit code 1 where a request failed. Several
tokens of one message share the time since the message before; an open loop counts a request's
times from its arrival.";

pub(crate) const REPORT: &str = "\
Examples:
  star report runs/first
  star report runs/side-by-side --from runs/zero-shot runs/tuned";

#[cfg(feature = "embedded")]
pub(crate) const RANDOM_MODEL: &str = "\
Examples:
  star random-model --out models/random
  star random-model --preset llama3-vocab-tiny --tokenizer llama3-tokenizer --out models/random";
