"""The tokenizers of decoder-only checkpoints."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_jax.errors import ModelError
from prompt_jax.models.decoder import gguf
from prompt_jax.models.gguf_file import is_gguf, open_gguf
from prompt_jax.models.tokenizers import BaseTokenizer, configured_tokens, read_bytes, read_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

CUE = "\n{}:"  # after the input, with the name of the answer
PAD = 0  # padding is told by the mask, so any id does


class DecoderTokenizer(BaseTokenizer):
    """A tokenizer of the `tokenizers` package.

    Args:
      backend: texts to ids.
      digest: SHA-256 (hex) of the file.
      begin: ids that its checkpoint expects before every text.
      eos_id: end of sequence.
      ends: all ids that end a generated sequence.
    """

    def __init__(
        self,
        backend: Backend,
        digest: str,
        begin: Sequence[int],
        eos_id: int,
        ends: Sequence[int] = (),
    ) -> None:
        self._backend, self.begin = backend, tuple(begin)
        self._ends = frozenset((eos_id, *ends))
        backend.no_truncation()
        backend.no_padding()
        facts = json.dumps([digest, self.begin, eos_id, CUE]).encode()
        size = backend.get_vocab_size(with_added_tokens=True)
        super().__init__(hashlib.sha256(facts).hexdigest(), PAD, eos_id, size)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def input_text(self, text: str, cue: str) -> str:
        """An input with the cue for the answer."""
        return text.rstrip() + CUE.format(cue)

    def answer_text(self, text: str) -> str:
        """An answer with its leading space."""
        return f" {text}"

    def input_tail(self, cue: str) -> int:
        """Tokens of the cue."""
        alone, cued = self._tokens(["a", self.input_text("a", cue)])
        return len(cued) - len(alone)

    def encode_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts from `input_text`, after those that begin a text."""
        return [[*self.begin, *row] for row in self.encode(texts, add_eos=False)]

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of `answer_text` as they follow the cue, and the end of sequence.

        Encoded together with the cue: some tokenizers put a space before whatever begins a text.
        """
        before = CUE.format("")
        (cue,) = self._tokens([before])
        whole = self.encode([before + self.answer_text(text) for text in texts])
        alone = self.encode([self.answer_text(text) for text in texts])
        pairs = zip(whole, alone, strict=True)
        return [row[len(cue) :] if row[: len(cue)] == cue else own for row, own in pairs]

    def _text(self, ids: list[int]) -> str:
        """The text up to the end of sequence: what follows it in a generated row is filling."""
        ids = list(itertools.takewhile(lambda number: number not in self._ends, ids))
        return self._backend.decode(ids, skip_special_tokens=True)


def load_tokenizer(path: str | Path, eos_ids: tuple[int, ...]) -> DecoderTokenizer:
    """The tokenizer of a checkpoint; read once per path.

    Args:
      path: the directory, which holds tokenizer.json, or that file, or a GGUF file.
      eos_ids: what the model's configuration ends a sequence with.

    Raises:
      ModelError: there is none, the file is damaged, or it ends texts with another token.
    """
    return _load(str(Path(path).expanduser().resolve()), eos_ids)


@functools.lru_cache(maxsize=16)
def _load(where: str, eos_ids: tuple[int, ...]) -> DecoderTokenizer:
    path = Path(where)
    if is_gguf(path):
        backend, digest, begin = gguf.tokenizer_of(open_gguf(path))
        return DecoderTokenizer(backend, digest, begin, eos_ids[0], eos_ids)
    directory = path.parent if path.is_file() else path
    file = path if path.is_file() else path / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{path} holds no tokenizer: put the checkpoint's tokenizer.json there.")
    from tokenizers import Tokenizer as Backend

    content = read_bytes(file)
    try:
        backend = Backend.from_str(content.decode("utf-8"))
    except Exception as error:  # the package raises bare Exceptions
        raise ModelError(f"{file} is not a valid tokenizer.json: {error}.") from error
    eos = configured_tokens(directory).get("eos_token")
    eos_id = eos_ids[0] if eos is None else backend.token_to_id(eos)
    if eos_id not in eos_ids:
        raise ModelError(
            f"{directory} ends texts with '{eos}' (id {eos_id}), but the model's configuration "
            f"with {', '.join(map(str, eos_ids))}: is it the tokenizer of another model?"
        )
    digest = hashlib.sha256(content).hexdigest()
    return DecoderTokenizer(backend, digest, _beginning(backend, directory), eos_id, eos_ids)


def _beginning(backend: Backend, directory: Path) -> list[int]:
    """The ids that the checkpoint puts before a text."""
    config = read_config(directory / "tokenizer_config.json")
    asked = config.get("add_bos_token")
    if isinstance(asked, bool):  # transformers lets it decide where it is there
        bos = config.get("bos_token")
        name = bos.get("content") if isinstance(bos, dict) else bos
        if not asked or name is None:
            return []
        number = backend.token_to_id(str(name))
        if number is None:
            raise ModelError(f"{directory}: the tokenizer has no token '{name}' (bos_token).")
        return [number]
    whole = backend.encode("a", add_special_tokens=True).ids
    text = backend.encode("a", add_special_tokens=False).ids
    return whole[: whole.index(text[0])] if text and text[0] in whole else []
