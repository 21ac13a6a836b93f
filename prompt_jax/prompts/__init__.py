"""Soft prompts and task vectors: types, starting points, files, interchange, comparison.

>>> import numpy as np
>>> from prompt_jax import prompts
>>> init = prompts.SoftPrompt(np.zeros((2, 4), np.float32))
>>> tuned = prompts.SoftPrompt(np.ones((2, 4), np.float32))
>>> init + 0.5 * (tuned - init)
SoftPrompt(L=2, D=4, norm=1.414)
"""

from prompt_jax.prompts.compare import METRICS as METRICS
from prompt_jax.prompts.compare import nearest_words as nearest_words
from prompt_jax.prompts.compare import similarity as similarity
from prompt_jax.prompts.expression import combine as combine
from prompt_jax.prompts.expression import linear as linear
from prompt_jax.prompts.files import load_particles as load_particles
from prompt_jax.prompts.files import save_particles as save_particles
from prompt_jax.prompts.initialisers import ClassLabels as ClassLabels
from prompt_jax.prompts.initialisers import FromFile as FromFile
from prompt_jax.prompts.initialisers import Initialiser as Initialiser
from prompt_jax.prompts.initialisers import SampledVocabulary as SampledVocabulary
from prompt_jax.prompts.initialisers import Text as Text
from prompt_jax.prompts.initialisers import Uniform as Uniform
from prompt_jax.prompts.initialisers import init_id as init_id
from prompt_jax.prompts.initialisers import initialisation_of as initialisation_of
from prompt_jax.prompts.initialisers import parse as parse
from prompt_jax.prompts.interchange import base_model as base_model
from prompt_jax.prompts.interchange import from_npy as from_npy
from prompt_jax.prompts.interchange import from_npz as from_npz
from prompt_jax.prompts.interchange import from_peft as from_peft
from prompt_jax.prompts.interchange import to_npy as to_npy
from prompt_jax.prompts.interchange import to_peft as to_peft
from prompt_jax.prompts.record import PromptRecord as PromptRecord
from prompt_jax.prompts.record import check_model as check_model
from prompt_jax.prompts.record import config_differences as config_differences
from prompt_jax.prompts.types import SoftPrompt as SoftPrompt
from prompt_jax.prompts.types import TaskVector as TaskVector
from prompt_jax.prompts.types import add as add
from prompt_jax.prompts.types import apply_vector as apply_vector
from prompt_jax.prompts.types import task_vector as task_vector
