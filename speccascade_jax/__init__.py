"""Speculative cascades in JAX: the public API in one screen.

    import speccascade_jax as sc

    pair = sc.load_pair('debian')
    out = pair.generate(texts, rule=sc.opt, alpha=0.2, gamma=4)

Nothing here needs gin, seqio or TensorFlow.
"""

from speccascade_jax.base import Provenance
from speccascade_jax.base import Rule
from speccascade_jax.base import Target
from speccascade_jax.base import Verdict
from speccascade_jax.base import Verify
from speccascade_jax.deferral import as_target
from speccascade_jax.deferral import bild_fixed
from speccascade_jax.deferral import chow
from speccascade_jax.deferral import chow_log
from speccascade_jax.deferral import diff
from speccascade_jax.deferral import diff_log
from speccascade_jax.deferral import drafter_only
from speccascade_jax.deferral import ensemble
from speccascade_jax.deferral import lossy
from speccascade_jax.deferral import lossy_exact
from speccascade_jax.deferral import mix
from speccascade_jax.deferral import mix_tokens
from speccascade_jax.deferral import opt
from speccascade_jax.deferral import opt_log
from speccascade_jax.deferral import token_v1
from speccascade_jax.deferral import token_v2
from speccascade_jax.deferral import token_v3
from speccascade_jax.deferral import typical
from speccascade_jax.deferral import verifier_only
from speccascade_jax.loading import load_pair
from speccascade_jax.pair import Model
from speccascade_jax.pair import Output
from speccascade_jax.pair import Pair
from speccascade_jax.verification import verify_block
from speccascade_jax.verification import verify_tokens

__all__ = [
  'Model',
  'Output',
  'Pair',
  'Provenance',
  'Rule',
  'Target',
  'Verdict',
  'Verify',
  'as_target',
  'bild_fixed',
  'chow',
  'chow_log',
  'diff',
  'diff_log',
  'drafter_only',
  'ensemble',
  'load_pair',
  'lossy',
  'lossy_exact',
  'mix',
  'mix_tokens',
  'opt',
  'opt_log',
  'token_v1',
  'token_v2',
  'token_v3',
  'typical',
  'verifier_only',
  'verify_block',
  'verify_tokens',
]
