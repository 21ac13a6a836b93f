"""The methods, one file each. A new one is imported here, in one line, and thereby registered."""

from __future__ import annotations

from prompt_jax.methods.attempt import Attempt as Attempt
from prompt_jax.methods.base import Artefact as Artefact
from prompt_jax.methods.base import BaseMethod as BaseMethod
from prompt_jax.methods.base import Context as Context
from prompt_jax.methods.base import Panel as Panel
from prompt_jax.methods.base import SourceInstances as SourceInstances
from prompt_jax.methods.base import Stage as Stage
from prompt_jax.methods.base import TemplateTokens as TemplateTokens
from prompt_jax.methods.bmtpt import Bmtpt as Bmtpt
from prompt_jax.methods.bmtpt import BmtptParticles as BmtptParticles
from prompt_jax.methods.dmtg import Dmtg as Dmtg
from prompt_jax.methods.dtvg import Dtvg as Dtvg
from prompt_jax.methods.full_fine_tuning import FullFineTuning as FullFineTuning
from prompt_jax.methods.mpt import Mpt as Mpt
from prompt_jax.methods.mpt import MptTasks as MptTasks
from prompt_jax.methods.prompt_tuning import PromptTuning as PromptTuning
from prompt_jax.methods.registry import REGISTRY as REGISTRY
from prompt_jax.methods.registry import as_method as as_method
from prompt_jax.methods.registry import create as create
from prompt_jax.methods.registry import load_plugin as load_plugin
from prompt_jax.methods.registry import register as register
from prompt_jax.methods.registry import resolve as resolve
from prompt_jax.methods.registry import spec_of as spec_of
from prompt_jax.methods.smop import Smop as Smop
from prompt_jax.methods.spot import Spot as Spot
from prompt_jax.methods.spot import source_similarity as source_similarity
from prompt_jax.methods.spt import Spt as Spt
from prompt_jax.methods.spt import SptFull as SptFull
from prompt_jax.methods.taps import Taps as Taps
from prompt_jax.methods.task_prompt_vectors import TaskPromptVectors as TaskPromptVectors

for _kind in tuple(vars().values()):
    if isinstance(_kind, type) and issubclass(_kind, BaseMethod) and _kind is not BaseMethod:
        register(_kind)
