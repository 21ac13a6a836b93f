"""Stein variational gradient descent on any pytree with a leading particle axis.

It depends on neither the language models nor the trainer.

`svgd(kernel)` is an `optax.GradientTransformation` that couples M particles before the optimizer:

    optimizer = optax.chain(svgd(rbf()), optax.adam(0.3))
    updates, state = optimizer.update(grads, state, particles)   # grads of -log posterior, [M, ...]
    particles = optax.apply_updates(particles, updates)

A step requires M gradients, one per particle; the kernels' gradients are in closed form.
"""

from prompt_jax.svgd.diagnostics import Diagnostics as Diagnostics
from prompt_jax.svgd.diagnostics import diagnose as diagnose
from prompt_jax.svgd.diagnostics import effective_rank as effective_rank
from prompt_jax.svgd.diagnostics import pairwise_distances as pairwise_distances
from prompt_jax.svgd.diagnostics import stein_discrepancy as stein_discrepancy
from prompt_jax.svgd.kernels import Bandwidth as Bandwidth
from prompt_jax.svgd.kernels import Interaction as Interaction
from prompt_jax.svgd.kernels import Kernel as Kernel
from prompt_jax.svgd.kernels import ScalarKernel as ScalarKernel
from prompt_jax.svgd.kernels import imq as imq
from prompt_jax.svgd.kernels import linear as linear
from prompt_jax.svgd.kernels import mean_pooled as mean_pooled
from prompt_jax.svgd.kernels import per_coordinate as per_coordinate
from prompt_jax.svgd.kernels import per_token as per_token
from prompt_jax.svgd.kernels import rbf as rbf
from prompt_jax.svgd.kernels import sliced as sliced
from prompt_jax.svgd.transform import SvgdState as SvgdState
from prompt_jax.svgd.transform import svgd as svgd
