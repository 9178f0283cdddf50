"""Hugging Face's Trainer: a language model of 20,000 parameters learns to add, and every rank is heard.

python examples/hf_trainer.py, or torchrun --nproc-per-node 2 examples/hf_trainer.py
"""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import allranks
from allranks.integrations.transformers import AllranksCallback

LETTERS = "0123456789+=."
LENGTH = 8


def sums(count: int, seed: int) -> list[dict[str, Any]]:
    """Lines such as `17+25=42`, as the numbers of their letters."""
    chance = random.Random(seed)
    found: list[dict[str, Any]] = []
    for _ in range(count):
        a, b = chance.randrange(50), chance.randrange(50)
        line = f"{a}+{b}={a + b}".ljust(LENGTH, ".")
        tokens = torch.tensor([LETTERS.index(letter) for letter in line])
        found.append({"input_ids": tokens, "labels": tokens})
    return found


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = GPT2Config(vocab_size=len(LETTERS), n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=12)
    size.eos_token_id = 12
    trainer = Trainer(
        model=GPT2LMHeadModel(size),
        args=TrainingArguments(
            # The same folder in all ranks of a host; what is written there is kept with the run.
            output_dir=allranks.run.dir,
            report_to="none",
            use_cpu=True,
            max_steps=150,
            per_device_train_batch_size=64,
            learning_rate=3e-3,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=50,
            save_steps=150,
        ),
        train_dataset=sums(8192, seed=1),
        eval_dataset=sums(512, seed=2),
        callbacks=[AllranksCallback(project="hf-trainer")],
    )
    trainer.train()


if __name__ == "__main__":
    main()
