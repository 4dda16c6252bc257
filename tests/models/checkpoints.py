"""A checkpoint folder as people bring it, small enough to train in a test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing


def tiny_checkpoint(folder: Path, texts: Iterable[str]) -> Path:
    """A three-layer BERT of width 64 with seeded random weights, over the words of the texts and single letters."""
    import torch
    from safetensors.torch import save_file

    from models.bert import BertConfig, BertEncoder

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789é-"
    words = [*marks, *letters, *(f"##{one}" for one in letters), *sorted({w for text in texts for w in text.split()})]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {
        "vocab_size": len(words), "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 160,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu", **sizes}))
    torch.manual_seed(3)
    save_file(BertEncoder(BertConfig(**sizes)).state_dict(), folder / "model.safetensors")
    return folder
