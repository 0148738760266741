"""The model: a small Llama with random weights and a tokenizer made in memory, taught to imitate the noisy writer. Nothing is downloaded."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from task import END, PAD, TOKENS, Random, attempts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def tokenizer() -> Any:
    """A token a character of a prompt; the writer's longer tokens are the model's alone."""
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token=PAD))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD, eos_token=END, padding_side="left")


def model(width: int = 64, layers: int = 2) -> Any:
    """A Llama of random weights."""
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=TOKENS.index(END)))


def imitate(where: Path, *, texts: int, epochs: int, temperature: float, batch: int = 64, seed: int = 0) -> None:
    """Trains a new model on what the noisy writer writes and keeps it, with its tokenizer, in a folder. Once: what is there stays."""
    if (where / "config.json").exists():
        return
    torch.manual_seed(seed)
    made, tokens = model(), tokenizer()
    number = {token: i for i, token in enumerate(TOKENS)}
    rows = []
    for text, written in attempts(Random(seed), texts, temperature):
        asked = [number[character] for character in text]
        rows.append((asked + [number[token] for token in written], len(asked)))
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3, weight_decay=0.0)
    steps = epochs * (len(rows) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=steps, desc="imitate the writer", unit="step")
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator).tolist()
        for begin in range(0, len(rows) - batch + 1, batch):
            chosen = [rows[i] for i in order[begin : begin + batch]]
            longest = max(len(row) for row, _ in chosen)
            ids, labels = torch.zeros((batch, longest), dtype=torch.long), torch.full((batch, longest), -100)
            for i, (row, asked_length) in enumerate(chosen):
                ids[i, : len(row)] = torch.tensor(row)
                labels[i, asked_length : len(row)] = ids[i, asked_length : len(row)]
            loss = made(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    bar.close()
    where.mkdir(parents=True, exist_ok=True)
    tokens.save_pretrained(where)
    made.save_pretrained(where)
