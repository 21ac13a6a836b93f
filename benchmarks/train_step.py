"""Time of a training step of prompt tuning, compared with Hugging Face PEFT, interleaved.

    python benchmarks/train_step.py                         # T5-small, B = 32, 100 + 128, fp32
    python benchmarks/train_step.py --model smollm2-135m --batch 16 --prompt 20
    python benchmarks/train_step.py --model t5-base --batch 128 --dtype bfloat16   # a GPU

Both sides have the same weights, prompt, rows and loss; the first losses must agree. A step is a
forward pass, a backward pass to the prompt and an AdamW update, without dropout. Rounds alternate
between the two, so that noise of the machine affects both; the ratio is the median over rounds of
PEFT's time divided by ours (above 1: prompt_jax is faster). The share of the ceiling is the number
of FLOPs (counted by hand) divided by the time and by the rate of a matrix product of a feed-forward
layer's shape, measured in the same process with both libraries (the faster one counts).

With `--lengths real`, row lengths follow a mixture of GLUE and SuperGLUE tasks under the T5
vocabulary. PEFT pads a batch to its longest row, as its default collators do; prompt_jax sorts rows
into micro-batches.

Where others compute on the same machine, `--clock cpu` under `taskset -c 0` compares the processor
time of one thread, which they hardly change.

Needs torch, transformers and peft (`make env-parity`); no network, no data.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.data.feed import Feed
from prompt_jax.data.ragged import Ragged
from prompt_jax.data.render import Example
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.methods import create
from prompt_jax.models import LanguageModel, registry
from prompt_jax.run_key import RunKey
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.population import Population
from prompt_jax.training.types import Replica, TrainConfig

# Every fifth percentile of the input lengths of 250 validation rows each of RTE, MRPC, QNLI, SST-2
# and BoolQ in their plain templates, T5's vocabulary, truncated at 256: mean 75.
REAL_LENGTHS = (
    *(6, 22, 29, 34, 38, 42, 46, 49, 52, 56, 59),
    *(63, 66, 71, 77, 85, 102, 124, 152, 198, 256),
)
LEARNING_RATE = 0.3


def make_rows(args: argparse.Namespace, vocab: int) -> TokenisedSplit:
    """Random token rows of the given lengths, each with two target tokens and the end."""
    rng = np.random.default_rng(args.seed)
    count = args.batch * args.batches
    if args.lengths == "real":
        grid = np.linspace(0, 1, len(REAL_LENGTHS))
        lengths = np.interp(rng.random(count), grid, REAL_LENGTHS).astype(int)
    else:
        lengths = np.full(count, args.tokens)
    inputs = [[*rng.integers(3, vocab - 200, n - 1).tolist(), 1] for n in lengths]
    targets = [[*rng.integers(3, vocab - 200, args.targets - 1).tolist(), 1] for _ in range(count)]
    none = np.zeros(count, np.int32)
    return TokenisedSplit(
        "benchmark",
        Ragged.of(inputs),
        Ragged.of(targets),
        none - 1,
        none,
        none,
        Ragged.of([[]] * count),
        Ragged.of([]),
        none.astype(bool),
        none.astype(bool),
        tuple(Example("", "") for _ in range(count)),
        ("plain",),
        ("benchmark",),
    )


class Ours:
    """The training step of this library, with one replica."""

    def __init__(
        self,
        lm: LanguageModel,
        rows: TokenisedSplit,
        prompt: np.ndarray,
        batch: int,
        micro_tokens: int,
    ) -> None:
        optimizer = OptimizerConfig(
            learning_rate=LEARNING_RATE, unit="absolute", schedule="constant"
        )
        config = TrainConfig(
            steps=10**6,
            batch_size=batch,
            optimizer=optimizer,
            eval_every=0,
            micro_batch_tokens=micro_tokens,
        )
        run = Replica(RunKey(), Feed(rows, batch, 0), {"prompt": prompt})
        self.population = Population(lm, create("prompt_tuning"), [run], config)
        self.feed = run.feed

    def step(self, number: int) -> float:
        """One step; returns the loss (waits for the device)."""
        return float(self.population.step(number).loss[0])


class Peft:
    """PEFT's prompt tuning on the torch model, as its documentation uses it."""

    def __init__(self, model: Any, rows: TokenisedSplit, prompt: np.ndarray, feed: Feed) -> None:
        import peft
        import torch

        self.continues = not model.config.is_encoder_decoder
        kind = peft.TaskType.CAUSAL_LM if self.continues else peft.TaskType.SEQ_2_SEQ_LM
        config = peft.PromptTuningConfig(
            task_type=kind, num_virtual_tokens=len(prompt), num_transformer_submodules=1
        )
        self.torch, self.rows, self.feed = torch, rows, feed
        self.device = model.device
        self.model = peft.get_peft_model(model, config)
        weight = self.model.prompt_encoder["default"].embedding.weight
        weight.data = torch.tensor(prompt, device=self.device)
        self.optimizer = torch.optim.AdamW([weight], lr=LEARNING_RATE, weight_decay=0.0)
        self.model.train()

    def batch(self, number: int) -> dict[str, Any]:
        """The rows of a step, padded to the longest."""
        torch, index = self.torch, self.feed.rows(number)
        targets = self.rows.targets.padded(index, None, -100)
        lengths = self.rows.inputs.lengths[index]
        ids = self.rows.inputs.padded(index)
        labels = targets
        if self.continues:  # one text: the input, then the target, then padding
            real = [(ids[i, :n], targets[i][targets[i] >= 0]) for i, n in enumerate(lengths)]
            lengths = np.array([len(start) + len(end) for start, end in real])
            ids = np.zeros((len(real), lengths.max()), np.int64)
            labels = np.full_like(ids, -100)
            for i, (start, end) in enumerate(real):
                ids[i, : lengths[i]] = np.concatenate([start, end])
                labels[i, len(start) : lengths[i]] = end
        mask = np.arange(ids.shape[1])[None] < lengths[:, None]
        arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: torch.tensor(x, device=self.device).long() for name, x in arrays.items()}

    def step(self, number: int) -> float:
        """One step; returns the loss (waits for the device)."""
        out = self.model(**self.batch(number))
        self.optimizer.zero_grad()
        out.loss.backward()
        self.optimizer.step()
        return float(out.loss.detach())


def published(name: str) -> tuple[type[registry.FamilyClass], Any]:
    """Class and configuration of a model by the last part of its published name, in any case."""
    for family in registry.FAMILIES:
        model_class = family.load_class()
        for shape, config in model_class.SHAPES.items():
            if shape.rpartition("/")[2].lower() == name.lower():
                return model_class, config
    raise SystemExit(f"the shape of '{name}' is not known")


def torch_model(config: Any, args: argparse.Namespace) -> Any:
    """A randomly initialised torch model without dropout, on the accelerator if there is one."""
    import torch
    import transformers

    torch.manual_seed(args.seed)
    facts = {**config.to_hf_dict(), "dropout_rate": 0.0}
    own = transformers.AutoConfig.for_model(facts.pop("model_type"), **facts)
    if own.is_encoder_decoder:
        model = transformers.AutoModelForSeq2SeqLM.from_config(own)
    else:
        model = transformers.AutoModelForCausalLM.from_config(own)
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    return model.to(device), torch


def matmul_rate(
    shape: tuple[int, int, int], dtype: str, torch: Any, device: Any, clock: Callable[[], float]
) -> float:
    """FLOP/s of a matrix product [m, k] x [k, n], the faster of JAX and torch."""
    m, k, n = shape
    a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
    x = torch.ones(m, k, device=device, dtype=getattr(torch, dtype))
    y = torch.ones(k, n, device=device, dtype=getattr(torch, dtype))
    product = jax.jit(jnp.matmul)

    def ours() -> None:
        jax.block_until_ready([product(a, b) for _ in range(4)])

    def theirs() -> None:
        for _ in range(4):
            z = x @ y
        float(z[0, 0])

    return 4 * 2.0 * m * k * n / min(best_time(ours, clock), best_time(theirs, clock))


def best_time(call: Callable[[], Any], clock: Callable[[], float], rounds: int = 5) -> float:
    """Minimum seconds over rounds, after a warm-up call."""
    call()
    times = []
    for _ in range(rounds):
        began = clock()
        call()
        times.append(clock() - began)
    return min(times)


def main() -> None:
    """Runs the comparison and prints one JSON object."""
    parser = argparse.ArgumentParser(description="prompt tuning step: prompt_jax against PEFT")
    parser.add_argument("--model", default="t5-small", help="a published name, in any case")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--lengths", default="fixed", choices=("fixed", "real"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4, help="different batches")
    parser.add_argument("--micro-tokens", type=int, default=0, help="0: the library's choice")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    clock = time.process_time if args.clock == "cpu" else time.perf_counter

    model_class, config = published(args.model)
    model, torch = torch_model(config, args)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        lm = model_class.from_pretrained(folder, dtype=args.dtype)
    model = model.to(getattr(torch, args.dtype))
    rows = make_rows(args, config.vocab_size)
    table = np.asarray(lm.embed(np.arange(args.prompt)), np.float32)
    ours = Ours(lm, rows, table, args.batch, args.micro_tokens)
    theirs = Peft(model, rows, table, ours.feed)

    first = (ours.step(0), theirs.step(0))
    tolerance = 1e-4 if args.dtype == "float32" else 2e-2
    if abs(first[0] - first[1]) > tolerance * abs(first[1]):
        raise SystemExit(f"the first losses differ: ours {first[0]}, PEFT {first[1]}")
    for number in range(args.batches):  # compiles every shape before the measurement
        ours.step(number), theirs.step(number)

    seconds: dict[str, list[float]] = {"ours": [], "peft": []}
    for _ in range(args.rounds):
        elapsed = {"ours": 0.0, "peft": 0.0}
        for number in range(args.batches):  # the rows of a step depend only on its number
            for name, side in (("ours", ours), ("peft", theirs)):
                began = clock()
                side.step(number)
                elapsed[name] += clock() - began
        for name, total in elapsed.items():
            seconds[name].append(total / args.batches)
    mean_tokens = args.prompt + float(rows.inputs.lengths.mean())
    work = lm.flops(args.batch, round(mean_tokens), args.targets, backward="prompt")
    rate = matmul_rate(
        (args.batch * round(mean_tokens), config.d_model, config.d_ff),
        args.dtype,
        torch,
        theirs.device,
        clock,
    )
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peft"], strict=True)]
    ours_median = statistics.median(seconds["ours"])
    print(
        json.dumps(
            {
                **vars(args),
                "seconds_ours": round(ours_median, 4),
                "seconds_peft": round(statistics.median(seconds["peft"]), 4),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
                "first_losses": first,
                "matmul_gflops": round(rate / 1e9, 1),
                "share_of_matmul_ceiling": round(work / ours_median / rate, 3),
                "micro_batch_tokens": ours.population.token_budget,
                "device": jax.devices()[0].device_kind,
                "machine": platform.processor() or platform.machine(),
                "versions": {
                    name: version(name) for name in ("jax", "torch", "transformers", "peft")
                },
            }
        )
    )


if __name__ == "__main__":
    main()
