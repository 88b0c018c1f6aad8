"""TRL's SFTTrainer with its defaults (loss on completions, padding, no packing, fused AdamW), but without gradient
checkpointing, which its defaults have: it would cost time that the others do not spend."""

import json
import time

import training

args = training.arguments()


def main():
    results = training.private_stdout()
    import datasets
    import torch
    import transformers
    import trl

    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(args.threads)
    rows = training.examples(args)
    data = datasets.Dataset.from_dict(
        {
            "input_ids": [row["ids"] for row in rows],
            "labels": [[-100] * row["label_start"] + row["ids"][row["label_start"] :] for row in rows],
        }
    )
    step_ms, losses = [], []

    class Clock(transformers.TrainerCallback):
        """The time of a step, its batch not counted, and its loss."""

        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()

        def on_step_end(self, *_, **__):
            step_ms.append(1000 * (time.perf_counter() - self.start))

        def on_log(self, _args, _state, _control, logs=None, **__):
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    class InOrder(trl.SFTTrainer):
        """The examples in the order of the file, as for all others."""

        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    config = trl.SFTConfig(
        output_dir=args.out,
        use_cpu=True,
        bf16=args.dtype == "bf16",
        per_device_train_batch_size=args.batch_size,
        max_steps=args.steps,
        learning_rate=args.lr,
        lr_scheduler_type="linear",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        max_length=2048,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = InOrder(
        model=transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        args=config,
        train_dataset=data,
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model),
        callbacks=[Clock()],
    )
    trainer.train()
    found = {
        "version": f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
        "settings": f"SFTTrainer, {trainer.model.config._attn_implementation} attention, {getattr(config.optim, 'value', config.optim)}, "
        f"loss {config.loss_type}" + (", bf16 autocast" if config.bf16 else ""),
        "step_ms": step_ms,
        "losses": losses,
        "peak_mib": training.peak_mib(),
    }
    results.write(json.dumps(found) + "\n")
    results.flush()


if __name__ == "__main__":
    main()
