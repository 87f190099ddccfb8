"""A drafter and a verifier as one model of T5X.

T5X's models take a `decode_fn`, but what they hand to it scores one token a row
and keeps one cache index for all rows: a block can neither be scored in one
call nor rolled back row by row. So this is a model instead, whose
`predict_batch` is the package's own loop. What T5X sees of it is that of its
own encoder-decoder: the same batches, and parameters under the same names and
logical axes, of two models side by side::

  params/verifier/decoder/layers_0/mlp/wo/kernel   ('mlp', 'embed')
  params/drafter/decoder/layers_0/mlp/wo/kernel    ('mlp', 'embed')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import inspect
from typing import Any

from flax import core
from flax import traverse_util
from flax.linen import partitioning
import jax
import jax.numpy as jnp
import seqio
from t5x import models

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import loading
from speccascade_jax import loops
from speccascade_jax import scalars
from speccascade_jax import static
from speccascade_jax import verification as verification_lib
from speccascade_jax.decoding import checks
from speccascade_jax.decoding import speculative
from speccascade_jax.models import families
from speccascade_jax.models.t5 import config as t5_config

VERIFIER, DRAFTER = 'verifier', 'drafter'
ROLES = (VERIFIER, DRAFTER)

Batch = Mapping[str, base.Array]


class SpeculativeCascade(models.EncoderDecoderModel):
  """Predicts with a speculative cascade; scores with the verifier."""

  def __init__(
    self,
    *,
    verifier: t5_config.T5Config,
    drafter: t5_config.T5Config,
    input_vocabulary: seqio.Vocabulary,
    output_vocabulary: seqio.Vocabulary,
    rule: base.Rule,
    alpha: float,
    gamma: int,
    temperature: float,
    verification: base.Verify = verification_lib.verify_tokens,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    eta: float | None = None,
    optimizer_def: Any = None,
  ):
    """Checks what a config says; makes no parameters.

    Args:
      verifier: shape of the large model; `restoring.config_of` reads it off a
        checkpoint.
      drafter: shape of the small one.
      input_vocabulary: the task's, as for any model of T5X.
      output_vocabulary: likewise; its EOS ends a text.
      rule: what to emit, see `speccascade_jax.deferral`.
      alpha: the rule's trade-off; larger trusts the drafter more.
      gamma: tokens drafted a round.
      temperature: 0 is greedy.
      verification: `verify_tokens` or `verify_block`.
      top_k: keep the k likeliest tokens, for both models.
      top_p: keep the smallest set of tokens of this mass, for both models.
      min_p: keep tokens of at least this fraction of the largest probability.
      eta: see `distributions.Scaling`.
      optimizer_def: T5X's models have one; None decodes and evaluates.

    Raises:
      ValueError: if a value is out of range, or the models do not go together.
    """
    self._configs = {VERIFIER: verifier, DRAFTER: drafter}
    for role, config in self._configs.items():
      if not isinstance(config, t5_config.T5Config):
        raise ValueError(
          f'SpeculativeCascade.{role} must be a T5Config, as '
          f'restoring.config_of reads it off a checkpoint; got {config!r}.'
        )
    # Checkpoints pad the vocabulary, not always to the same size.
    self._vocab_size = min(c.vocab_size for c in self._configs.values())
    if self._vocab_size < output_vocabulary.vocab_size:
      sizes = {role: c.vocab_size for role, c in self._configs.items()}
      raise ValueError(
        f'The vocabulary has {output_vocabulary.vocab_size} pieces, but not '
        f'both models score as many: {sizes}. They do not belong together.'
      )
    self._rule = _plain(rule)
    self._verification = _plain(verification)
    loops.check('speculative', self._rule, self._verification, {})
    self._scaling = distributions.Scaling(
      greedy=bool(temperature == 0),
      top_k=top_k,
      top_p=top_p,
      min_p=min_p,
      eta=eta,
    )
    checks.check_temperature(temperature, self._scaling)
    scalars.check_alpha(alpha)
    self._temperature, self._alpha = temperature, alpha
    self._gamma = static.positive_integer('gamma', gamma)
    super().__init__(
      module=families.family_of(verifier).network(verifier),
      input_vocabulary=input_vocabulary,
      output_vocabulary=output_vocabulary,
      optimizer_def=optimizer_def,
      decode_fn=None,
    )

  def get_initial_variables(
    self,
    rng: base.Array,
    input_shapes: Mapping[str, Any],
    input_types: Mapping[str, Any] | None = None,
  ) -> core.FrozenDict:
    """Fresh parameters of both models, and the logical axes of each.

    Args:
      rng: a PRNG key, typed or raw.
      input_shapes: not read; a T5's parameters do not depend on them.
      input_types: likewise.

    Returns:
      {'params': {'verifier': ..., 'drafter': ...}, 'params_axes': likewise}.
    """
    del input_shapes, input_types
    keys = jax.random.split(_typed(rng))
    return core.freeze(
      {
        'params': {
          role: families.init(config, key)
          for (role, config), key in zip(
            self._configs.items(), keys, strict=True
          )
        },
        'params_axes': {
          role: _params_axes(config) for role, config in self._configs.items()
        },
      }
    )

  def predict_batch(
    self, params: base.Params, batch: Batch, rng: base.Array | None = None
  ) -> base.Array:
    """Texts `[B, T]` int32, 0 behind the EOS; arguments as below."""
    return self._decode(params, batch, rng, trace=False).tokens

  def predict_batch_with_aux(
    self, params: base.Params, batch: Batch, rng: base.Array | None = None
  ) -> tuple[base.Array, dict[str, base.Array]]:
    """Decodes a batch.

    Args:
      params: {'verifier': ..., 'drafter': ...}.
      batch: 'encoder_input_tokens' `[B, S]`; of 'decoder_input_tokens'
        `[B, T]` the width alone counts: T tokens are written at most.
      rng: a PRNG key, typed or raw; by default that of seed 0. Row i draws
        from it folded with i.

    Returns:
      Texts `[B, T]`, and by name: 'scores' `[B]`, the texts' log-likelihood
      under the verifier (unscaled); 'lengths' `[B]`; 'provenance' `[B, T]`, see
      `base.Provenance`; and the fields of `base.Counters`, `[B]`.
    """
    out = self._decode(params, batch, rng, trace=True)
    assert out.verifier_probs is not None  # They were asked for.
    inside = jnp.arange(out.tokens.shape[1]) < out.lengths[:, None]
    scores = jnp.where(inside, jnp.log(out.verifier_probs), 0.0).sum(axis=1)
    counters = {
      field.name: getattr(out.counters, field.name)
      for field in dataclasses.fields(out.counters)
    }
    return out.tokens, {
      'scores': scores,
      'lengths': out.lengths,
      'provenance': out.provenance,
      **counters,
    }

  def _decode(
    self,
    params: base.Params,
    batch: Batch,
    rng: base.Array | None,
    trace: bool,
  ) -> base.Generation:
    inputs = batch['encoder_input_tokens']
    eos_id = self.output_vocabulary.eos_id
    steps, arrays = {}, {}
    for role, config in self._configs.items():
      cut, arrays[role] = loading.cut_vocabulary(
        config, core.unfreeze(params[role]), self._vocab_size
      )
      steps[role] = families.step_model(cut, (1 if eos_id is None else eos_id,))
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      _typed(jax.random.key(0) if rng is None else rng),
      jnp.arange(inputs.shape[0]),
    )
    return speculative.decode(
      steps[DRAFTER],
      steps[VERIFIER],
      arrays[DRAFTER],
      arrays[VERIFIER],
      inputs,
      keys,
      self._alpha,
      self._temperature,
      rule=self._rule,
      gamma=self._gamma,
      max_length=batch['decoder_input_tokens'].shape[1],
      verify=self._verification,
      scaling=self._scaling,
      trace=trace,
    )

  def _compute_logits(
    self,
    params: base.Params,
    batch: Batch,
    dropout_rng: base.Array | None = None,
    mutable: Any = False,
    other_variables: Any = None,
  ) -> Any:
    """The verifier's teacher-forced logits `[B, T, V]`, for scores and losses.

    Raises:
      ValueError: if several examples are packed into a row.
    """
    del other_variables
    if 'encoder_segment_ids' in batch:
      raise ValueError(
        'SpeculativeCascade cannot take apart examples that are packed into '
        'one row: set DatasetConfig.pack = False.'
      )
    return self.module.apply(
      {'params': params[VERIFIER]},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'],
      deterministic=dropout_rng is None,
      rngs=None if dropout_rng is None else {'dropout': dropout_rng},
      mutable=mutable,
    )


def _params_axes(config: t5_config.T5Config) -> dict[str, Any]:
  """The logical axes of a model's parameters, in the form that T5X reads."""
  boxed = traverse_util.flatten_dict(families.abstract_params(config))
  return traverse_util.unflatten_dict(
    {
      (*path, f'{name}_axes'): partitioning.AxisMetadata(names=box.names)
      for (*path, name), box in boxed.items()
    }
  )


def _typed(rng: base.Array) -> base.Array:
  """A typed PRNG key; T5X's own are raw."""
  if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
    return rng
  return jax.random.wrap_key_data(rng)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
  """A function of this package itself, where gin hands over its wrapper.

  Some of them are told by what they are: `loops.check` knows which rule goes
  with which verification. A rule of the user's own keeps its wrapper, which
  holds the values that are bound to its parameters.
  """
  known = (
    *deferral.RULES,
    verification_lib.verify_tokens,
    verification_lib.verify_block,
  )
  found = inspect.unwrap(function) if callable(function) else function
  return found if found in known else function
