"""Paths that users wait for after training: decoding, ranking, evaluation, mixed prompts.

Each comparison ends with the same tokens or the same scores on both sides, which is checked first.
PEFT ranks a candidate as its documentation scores a text: a pass of input and candidate. We compute
the input once for all candidates of a row. For an encoder-decoder a second comparison gives PEFT's
side the encoder's output, computed once, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import inputs, peers
from benchmarks.harness import Piece, Record, Scale, agree, compared, interleave
from prompt_jax.evaluation import Job, rank
from prompt_jax.models import LanguageModel


class Shape(NamedTuple):
    """What is measured: B, L, S and T as in the glossary; `choices` candidates a row."""

    model: str
    dtype: str
    rows: int
    prompt: int
    tokens: int
    targets: int
    choices: int = 0

    def settings(self, **more: Any) -> dict[str, Any]:
        """For the record."""
        sizes = {"B": self.rows, "L": self.prompt, "S": self.tokens, "T": self.targets}
        chosen = {"C": self.choices} if self.choices else {}
        return {**sizes, **chosen, "dtype": self.dtype, **more}


def pieces(of: Scale) -> tuple[Piece, ...]:
    """Decoding, ranking, evaluation and mixed prompts."""
    t5, decoder, dtype, rows = of.choose(
        cpu=("t5-small", "smollm2-135m", "float32", 16),
        accelerator=("t5-base", "smollm2-135m", "bfloat16", 128),
        small=("toy-t5", "toy-decoder", "float32", 4),
    )
    prompt, tokens = (4, 12) if of.small else (100, 128)
    greedy = Shape(t5, dtype, rows, prompt, tokens, 8)
    ranked = Shape(t5, dtype, rows, prompt, tokens, 3, 3 if of.small else 6)
    of_decoder = ranked._replace(model=decoder, prompt=min(prompt, 20), tokens=tokens - 20 % tokens)
    made: tuple[tuple[str, Callable[..., Iterator[Record]], Shape], ...] = (
        ("greedy", measure_greedy, greedy),
        ("rank", measure_rank, ranked),
        ("rank", measure_rank, of_decoder),
        ("evaluate", measure_evaluation, ranked._replace(rows=4 * rows, choices=3)),
        ("mixed-prompts", measure_mixed, ranked._replace(rows=2 * rows, choices=0)),
        ("greedy", measure_greedy, of_decoder._replace(targets=8, choices=0)),
    )
    return tuple(
        Piece(
            f"decode/{what}/{s.model}",
            functools.partial(measure, f"decode/{what}/{s.model}", s, of),
        )
        for what, measure, s in made
    )


class Both(NamedTuple):
    """The two sides, on the same weights, rows and prompt."""

    lm: LanguageModel
    split: Any
    prompt: np.ndarray
    ids: np.ndarray
    mask: np.ndarray
    peer: Any  # peers.Peft, or None
    facts: dict[str, Any]


def both_sides(shape: Shape, of: Scale, lengths: str = "fixed") -> Both:
    """Makes the two sides; `facts` says so where the peer is not installed."""
    path = inputs.folder(shape.model)
    lm = inputs.load(path, shape.dtype)
    sizes = inputs.lengths(lengths, shape.rows, shape.tokens)
    split = inputs.rows(sizes, lm.vocab_size, targets=shape.targets, choices=shape.choices)
    prompt = inputs.prompt(lm, shape.prompt)
    index = np.arange(shape.rows)
    ids = split.inputs.padded(index)
    mask = (np.arange(ids.shape[1])[None] < sizes[:, None]).astype(np.int32)
    if note := peers.missing():
        return Both(lm, split, prompt, ids, mask, None, {"note": note})
    model = peers.load(path, shape.dtype, peers.torch_device(of.platform))
    peer = peers.Peft(model, prompt, split)
    peer.model.eval()
    return Both(lm, split, prompt, ids, mask, peer, {"peer_is": "PEFT"})


def measure_greedy(name: str, shape: Shape, of: Scale) -> Iterator[Record]:
    """Greedy decoding of `targets` tokens against `generate`."""
    both = both_sides(shape, of)
    prompt = jax.device_put(both.prompt)

    def ours() -> np.ndarray:
        made = both.lm.generate(both.ids, both.mask, prompt, max_new_tokens=shape.targets)
        return np.asarray(made)

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    facts = both.facts
    if both.peer is not None:
        given = both.peer.tensors(input_ids=both.ids, attention_mask=both.mask)
        pad = both.lm.pad_id

        def theirs() -> np.ndarray:
            made = both.peer.model.generate(
                **given, max_new_tokens=shape.targets, do_sample=False, pad_token_id=pad
            )
            made = made.cpu().numpy()
            if not both.peer.continues:
                return made[:, 1:]  # without the start token
            return made[:, both.ids.shape[1] :] if made.shape[1] > shape.targets else made

        first, second = ours(), theirs()
        whole = np.full_like(first, pad)
        whole[:, : second.shape[1]] = second
        same = float((first == whole).mean())
        least = 0.99 if shape.dtype == "float32" else 0.7
        if same < least or (first != pad).sum() != (whole != pad).sum():
            raise RuntimeError(f"only {same:.0%} of the tokens are equal, not timed")
        sides["peer"] = theirs
        facts = {**facts, "checked": f"{same:.1%} of the tokens are equal, and their number"}
    yield compared(name, interleave(sides, of), settings=shape.settings(), **facts)


def measure_rank(name: str, shape: Shape, of: Scale) -> Iterator[Record]:
    """The NLL of every candidate of every row."""
    both = both_sides(shape, of)
    prompt = jax.device_put(both.prompt)
    candidates = both.split.answers.padded(np.arange(shape.choices), None, -100)  # [C, T]

    def ours() -> np.ndarray:
        nll, _ = both.lm.rank(both.ids, both.mask, candidates, prompt)
        return np.asarray(nll)

    settings = shape.settings()
    if both.peer is None:
        yield compared(name, interleave({"ours": ours}, of), settings=settings, **both.facts)
        return
    index = np.arange(shape.rows)
    labels = [np.tile(candidate, (shape.rows, 1)) for candidate in candidates]
    batches = [both.peer.batch(index, each) for each in labels]

    def apart() -> np.ndarray:
        return np.stack([both.peer.nll(batch) for batch in batches], axis=1)

    tolerance = 1e-4 if shape.dtype == "float32" else 3e-2
    sides: dict[str, Callable[[], Any]] = {"ours": ours, "peer": apart}
    checked = agree("NLL of all candidates", ours(), apart(), tolerance)
    if not both.peer.continues:
        once = functools.partial(encoded_once, both, labels)
        agree("NLL of all candidates", ours(), once(), tolerance)
        sides["once"] = once
    found = interleave(sides, of)
    facts: dict[str, Any] = {"checked": checked, "settings": settings}
    two = found._replace(seconds={k: found.seconds[k] for k in ("ours", "peer")})
    yield compared(name, two, peer_is="PEFT, a pass of each candidate", **facts)
    if "once" in sides:
        two = found._replace(seconds={"ours": found.seconds["ours"], "peer": found.seconds["once"]})
        yield compared(f"{name}/encoder-once", two, peer_is="torch, the encoder once", **facts)


def encoded_once(both: Both, labels: list[np.ndarray]) -> np.ndarray:
    """The NLL of candidates by torch, with one pass of the encoder: `[B, C]`."""
    torch, model = both.peer.torch, both.peer.model.get_base_model()
    rows, length = both.ids.shape[0], len(both.prompt)
    given = both.peer.tensors(ids=both.ids, mask=both.mask)
    with torch.inference_mode():
        embedded = model.get_input_embeddings()(given["ids"])
        front = both.peer.weight.to(embedded.dtype)[None].expand(rows, -1, -1)
        ones = torch.ones(rows, length, dtype=torch.long, device=embedded.device)
        mask = torch.cat([ones, given["mask"]], 1)
        encoder = model.get_encoder()
        states = encoder(inputs_embeds=torch.cat([front, embedded], 1), attention_mask=mask)
        every = both.peer.tensors(labels=np.concatenate(labels))["labels"]
        repeated = states.last_hidden_state.repeat(len(labels), 1, 1)
        logits = model(
            encoder_outputs=(repeated,), attention_mask=mask.repeat(len(labels), 1), labels=every
        ).logits
        nll = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), every.flatten(), reduction="none"
        )
        return nll.view(len(labels), rows, -1).sum(2).T.cpu().numpy()


def measure_evaluation(name: str, shape: Shape, of: Scale) -> Iterator[Record]:
    """`evaluation.rank` over rows of real lengths; PEFT takes a batch of 32 at a time, in order."""
    both = both_sides(shape, of, "real")
    prompts = both.prompt[None]

    def ours() -> np.ndarray:
        (result,) = rank(both.lm, [Job(both.split)], prompts, normalise="sum")
        return result.scores

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    facts = both.facts
    if both.peer is not None:
        candidates = both.split.answers.padded(np.arange(shape.choices), None, -100)
        parts = np.array_split(np.arange(shape.rows), max(1, shape.rows // 32))

        def theirs() -> np.ndarray:
            found = []
            for index in parts:
                every = [
                    both.peer.nll(both.peer.batch(index, np.tile(each, (len(index), 1))))
                    for each in candidates
                ]
                found.append(np.stack(every, axis=1))
            return np.concatenate(found)

        tolerance = 1e-4 if shape.dtype == "float32" else 3e-2
        checked = agree("NLL of all candidates", ours(), theirs(), tolerance)
        sides["peer"] = theirs
        facts = {"peer_is": "PEFT, 32 rows at a time", "checked": checked}
    settings = shape.settings(lengths="real") | {
        "S": round(float(both.split.inputs.lengths.mean()), 1)
    }
    yield compared(name, interleave(sides, of), settings=settings, **facts)


def measure_mixed(name: str, shape: Shape, of: Scale) -> Iterator[Record]:
    """Eight prompts in one batch; PEFT changes the prompt and takes the rows of each in turn."""
    both = both_sides(shape, of)
    count = min(8, shape.rows)
    prompts = [inputs.prompt(both.lm, shape.prompt, seed) for seed in range(count)]
    of_row = np.arange(shape.rows) % count
    each = jax.device_put(np.stack([prompts[i] for i in of_row]))
    labels = both.split.targets.padded(np.arange(shape.rows), None, -100)

    def ours() -> np.ndarray:
        return np.asarray(both.lm.score(both.ids, both.mask, labels, each).nll)

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    facts = both.facts
    if both.peer is not None:
        groups = [np.flatnonzero(of_row == i) for i in range(count)]
        batches = [both.peer.batch(index) for index in groups]

        def theirs() -> np.ndarray:
            found = np.zeros(shape.rows)
            for prompt, index, batch in zip(prompts, groups, batches, strict=True):
                both.peer.set_prompt(prompt)
                found[index] = both.peer.nll(batch)
            return found

        tolerance = 1e-4 if shape.dtype == "float32" else 3e-2
        checked = agree("NLL of all rows", ours(), theirs(), tolerance)
        sides["peer"] = theirs
        facts = {"peer_is": "PEFT, one prompt after another", "checked": checked}
    settings = shape.settings(prompts=count)
    yield compared(name, interleave(sides, of), settings=settings, **facts)
