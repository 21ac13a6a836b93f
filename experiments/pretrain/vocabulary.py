"""A SentencePiece vocabulary, trained on the texts that the model is trained on."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

SENTINELS = 100  # `PieceTokenizer` puts them behind the pieces


def train(texts: Iterable[str], size: int, path: Path) -> None:
    """Trains a unigram model; the same texts give the same file.

    Args:
      texts: one a line.
      size: rows of the embedding: pieces and 100 sentinels.
      path: of the `spiece.model` to write.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=size - SENTINELS,
        model_type="unigram",
        character_coverage=0.9999,
        num_threads=1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        max_sentence_length=4096,
        byte_fallback=False,
        minloglevel=2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())
