"""Hugging Face's Trainer on a tiny language model, in as many ranks as it is started with."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from allranks.integrations.transformers import AllranksCallback

SAMPLES, STEPS = 16, 4


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1, resid_pdrop=0.5))
    tokens = torch.randint(0, 16, (SAMPLES, 8), generator=torch.Generator().manual_seed(1))
    samples: Any = [{"input_ids": row, "labels": row} for row in tokens]
    arguments = TrainingArguments(
        output_dir="out",
        report_to="none",
        use_cpu=True,
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=1,
        save_steps=STEPS,
        learning_rate=0.01,
        run_name="tiny",
        disable_tqdm=True,
    )
    callback = AllranksCallback(project="hf", log_model=True)
    trainer = Trainer(model=model, args=arguments, train_dataset=samples, eval_dataset=samples, callbacks=[callback])
    trainer.train()
    trainer.evaluate()
    if int(os.environ.get("RANK", "0")) == 0:
        with open("history.json", "w") as file:
            json.dump(trainer.state.log_history, file)


if __name__ == "__main__":
    main()
