"""Tasks, templates, sources of rows, splits, tokenised rows and feeds."""

from prompt_jax.data.feed import Feed as Feed
from prompt_jax.data.feed import Mixture as Mixture
from prompt_jax.data.feed import process_slice as process_slice
from prompt_jax.data.ragged import Ragged as Ragged
from prompt_jax.data.render import Example as Example
from prompt_jax.data.shots import few_shot as few_shot
from prompt_jax.data.sources import Source as Source
from prompt_jax.data.sources import Subset as Subset
from prompt_jax.data.sources import fetch as fetch
from prompt_jax.data.sources import open_split as open_split
from prompt_jax.data.splits import Limits as Limits
from prompt_jax.data.splits import Splits as Splits
from prompt_jax.data.splits import load_splits as load_splits
from prompt_jax.data.splits import make_splits as make_splits
from prompt_jax.data.tasks import HubSource as HubSource
from prompt_jax.data.tasks import Task as Task
from prompt_jax.data.tasks import Template as Template
from prompt_jax.data.tasks import TfdsSource as TfdsSource
from prompt_jax.data.tokenise import TokenisedSplit as TokenisedSplit
from prompt_jax.data.tokenise import concat as concat
from prompt_jax.data.tokenise import encode as encode
from prompt_jax.data.tokenise import render_rows as render_rows
from prompt_jax.data.tokenise import tokenise_rows as tokenise_rows
