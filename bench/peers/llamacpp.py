"""llama.cpp through llama-cpp-python's bindings of its C API: every prompt is a sequence of one context; prompts are
prefilled together, then each step decodes one token of every sequence, as llama-batched-bench and the server's
slots do. Greedy choice by numpy's argmax over the logits."""

import os
import sys

import worker

args = worker.arguments()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

MAX_SEQUENCES = 64
# Slots of a sequence: the longest workload is a 512-token prompt, the longest answers 256 tokens.
CONTEXT_PER_SEQUENCE = 512
LONG_CONTEXT = 1024
BATCH_TOKENS = 2048
GGML_TYPE = {"f32": 0, "f16": 1, "bf16": 30}
# The better choice for each type: (flash attention, type of keys and values).
CHOICE = {"f32": (0, "f32"), "bf16": (1, "bf16"), "q8_0": (0, "f16")}

if __name__ == "__main__":
    replies = worker.private_stdout()
    import llama_cpp
    import numpy as np
    from llama_cpp import llama_cpp as api

    silent = api.llama_log_callback(
        lambda level, text, data: level >= 4 and sys.stderr.write(text.decode(errors="replace"))
    )
    api.llama_log_set(silent, None)
    api.llama_backend_init()
    model = api.llama_model_load_from_file(args.model.encode(), api.llama_model_default_params())
    assert model, f"llama.cpp cannot load {args.model}"
    num_logits = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    flash_attention, kv_type = CHOICE[args.dtype]

    class Context:
        def __init__(self, num_sequences, context):
            params = api.llama_context_default_params()
            params.n_ctx = context * num_sequences
            params.n_seq_max = num_sequences
            params.n_batch, params.n_ubatch = BATCH_TOKENS, 512
            params.n_threads = params.n_threads_batch = args.threads
            params.flash_attn_type = flash_attention
            params.type_k = params.type_v = GGML_TYPE[kv_type]
            params.no_perf, params.offload_kqv, params.op_offload = True, False, False
            self.context = api.llama_init_from_model(model, params)
            assert self.context, "llama.cpp cannot make a context"
            self.batch = api.llama_batch_init(BATCH_TOKENS, 0, 1)
            self.size, self.wanted, self.chosen = 0, [], {}

        def clear(self):
            api.llama_memory_clear(api.llama_get_memory(self.context), True)

        def put(self, token, position, sequence, is_wanted):
            at, batch = self.size, self.batch
            batch.token[at], batch.pos[at] = token, position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = 1 if is_wanted else 0
            if is_wanted:
                self.wanted.append((at, sequence))
            self.size += 1
            if self.size == BATCH_TOKENS:
                self.flush()

        def flush(self):
            if self.size:
                self.batch.n_tokens = self.size
                assert api.llama_decode(self.context, self.batch) == 0, "llama_decode failed"
            for at, sequence in self.wanted:
                logits = np.ctypeslib.as_array(api.llama_get_logits_ith(self.context, at), shape=(num_logits,))
                self.chosen[sequence] = int(logits.argmax())
            self.size, self.wanted = 0, []

    # A context is as large as the work it is for: one for a few long sequences, one for the crowd.
    contexts = {}

    def context_for(prompts, max_tokens):
        longest = max(map(len, prompts)) + max_tokens
        size = CONTEXT_PER_SEQUENCE if longest <= CONTEXT_PER_SEQUENCE else LONG_CONTEXT
        assert longest <= size and len(prompts) <= MAX_SEQUENCES, (longest, len(prompts))
        key = (len(prompts), size)
        if key not in contexts:
            contexts[key] = Context(*key)
        return contexts[key]

    def run(prompts, max_tokens):
        context = context_for(prompts, max_tokens)
        context.clear()
        outputs = [[] for _ in prompts]
        for sequence, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                context.put(token, position, sequence, position == len(prompt) - 1)
        for step in range(max_tokens):
            context.flush()
            for sequence, output in enumerate(outputs):
                output.append(context.chosen[sequence])
            if step + 1 < max_tokens:
                for sequence, output in enumerate(outputs):
                    context.put(output[-1], len(prompts[sequence]) + step, sequence, True)
        return outputs

    # "CPU : AVX2 = 1 | AVX512 = 1 | ...": what it was compiled for.
    compiled = api.llama_print_system_info().decode().replace("|", ":").split(":")
    instructions = [part.split("=")[0].strip() for part in compiled if "AVX" in part or "AMX" in part]
    worker.serve(
        replies,
        {
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "settings": f"{'with' if flash_attention else 'without'} flash attention, {kv_type} keys and values, all "
            "sequences in one batch; compiled for " + ", ".join(instructions),
        },
        run,
    )
