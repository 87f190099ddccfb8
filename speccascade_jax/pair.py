"""A drafter and a verifier, and the texts that they generate together.

    import speccascade_jax as sc

    pair = sc.load_pair('debian')
    out = pair.generate(
      ['translate English to German: It is a text editor.'],
      rule=sc.opt, alpha=0.2, gamma=4, temperature=0.0, key=0,
    )
    print(out.texts[0], out.stats['block_efficiency'][0])

Everything happens on the device between the encoded and the decoded text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any
import warnings

import jax
import numpy as np

from speccascade_jax import base
from speccascade_jax import deferral
from speccascade_jax import distributions
from speccascade_jax import loops
from speccascade_jax import static
from speccascade_jax import verification
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.decoding import autoregressive
from speccascade_jax.decoding import call_times as call_times_lib
from speccascade_jax.decoding import sequence_cascade
from speccascade_jax.decoding import speculative
from speccascade_jax.decoding import stats as decoding_stats
from speccascade_jax.decoding import stopping
from speccascade_jax.decoding import teacher_forced
from speccascade_jax.decoding import token_cascade
from speccascade_jax.models import protocol

PAIR, DRAFTER, VERIFIER = 'pair', 'drafter', 'verifier'

# One for every name of `loops.LOOPS`.
_DECODE: dict[str, Callable[..., base.Generation]] = {
  'speculative': speculative.decode,
  'token_cascade': token_cascade.decode,
  'oracle_cascade': functools.partial(token_cascade.decode, oracle=True),
  'sequence_cascade': sequence_cascade.decode,
  'bild': functools.partial(speculative.decode, rule=deferral.bild_fixed),
}

# Sources are padded to the next of these widths, so that a stream of texts
# compiles a handful of programs rather than one a length.
_INPUT_BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


@dataclasses.dataclass(frozen=True)
class Model:
  """Step functions and the parameters that go with them."""

  step: protocol.StepModel
  params: base.Params
  config: Any


@dataclasses.dataclass(frozen=True)
class Output:
  """Finished texts of one `generate` call, in host memory.

  Attributes:
    texts: B strings.
    tokens: `[B, T]` int32, EOS kept, 0 behind it.
    lengths: `[B]` output tokens, EOS included.
    provenance: `[B, T]` int32, see `Provenance`.
    stats: `[B]` arrays by name: the `Counters` (drafter_steps,
      verifier_calls, drafted, accepted, resampled, deferred) and the rates
      (acceptance_rate, rejection_rate, deferral_rate, block_efficiency). NaN
      is a rate that is not defined, see `decoding.stats`.
    truncated: `[B]` bool, the input was cut to `input_length`.
    drafter_probs: `[B, T]` unscaled probabilities, when traced, else None.
    verifier_probs: likewise.
  """

  texts: list[str]
  tokens: np.ndarray
  lengths: np.ndarray
  provenance: np.ndarray
  stats: dict[str, np.ndarray]
  truncated: np.ndarray
  drafter_probs: np.ndarray | None = None
  verifier_probs: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Judgement:
  """What a model says of given texts, in host memory; K temperatures.

  Attributes:
    confidence: `[K, B, T]` probability of the likeliest token.
    surprisal: `[K, B, T]` of the text's own token, in nats.
    correct: `[B, T]` bool, the two are the same token.
    there: `[B, T]` bool, the text has this position.
    truncated: `[B]` bool, the input or the text was cut.
  """

  confidence: np.ndarray
  surprisal: np.ndarray
  correct: np.ndarray
  there: np.ndarray
  truncated: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pair:
  """A drafter and a verifier over one vocabulary.

  Attributes:
    drafter: the small model; None leaves a verifier that decodes alone.
    verifier: the large model.
    vocabulary: of both.
    digest: of configs, weights and vocabulary as files, and of the type they
      are computed in; None for a pair that does not come from files.
    prefixes: of the tasks that a shipped pair was trained for; an input that
      begins with none of them is warned of.
    bos_first: how inputs are framed, see `vocabulary.Framing`.
  """

  drafter: Model | None
  verifier: Model
  vocabulary: vocabularies.Vocabulary
  digest: str | None = None
  prefixes: tuple[str, ...] = ()
  bos_first: bool = False

  @property
  def framing(self) -> vocabularies.Framing:
    """How the models read an input."""
    return vocabularies.Framing(self.vocabulary, self.bos_first)

  def generate(
    self,
    texts: Sequence[str],
    rule: base.Rule | None = None,
    alpha: float = 0.0,
    gamma: int = 4,
    temperature: float = 0.0,
    key: int | base.Array = 0,
    *,
    method: str = 'speculative',
    verification: base.Verify = verification.verify_tokens,
    fallback: float | None = None,
    quantile: float | None = None,
    model: str = PAIR,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    eta: float | None = None,
    max_length: int = 128,
    stop: Sequence[str] = (),
    confidence_temperatures: Sequence[float] | None = None,
    input_length: int | None = None,
    row_ids: Sequence[int] | None = None,
    trace: bool = False,
  ) -> Output:
    """Generates one text per input; returns when the work is done.

    Args:
      texts: B inputs, task prefix included.
      rule: what to emit, see `speccascade_jax.deferral`; the default is
        lossless speculative decoding. Not read unless `model` is 'pair'.
      alpha: the rule's trade-off; larger trusts the drafter more. The rollback
        threshold of 'bild', in nats; the sequence's `1 - alpha` of
        'sequence_cascade'.
      gamma: tokens drafted a round, at most with 'bild'; not read by the
        cascades that draft no blocks.
      temperature: 0 is greedy.
      key: a seed or a typed PRNG key; row i uses it folded with row_ids[i].
      method: 'speculative'; 'token_cascade' and 'oracle_cascade', token by
        token, with a rule; 'sequence_cascade' and 'bild', without. See `loops`.
      verification: `verify_tokens` or `verify_block`.
      fallback: of 'bild', which stops drafting below this confidence.
      quantile: of 'sequence_cascade', which goes by this quantile of the
        tokens' log-probabilities rather than by their mean.
      model: 'pair', or 'drafter' / 'verifier' to decode with one alone.
      top_k: keep the k likeliest tokens, for both models.
      top_p: keep the smallest set of tokens of this mass, for both models.
      min_p: keep tokens of at least this fraction of the largest probability.
      eta: keep tokens that are likely, or typical for the entropy; see
        `distributions.Scaling`.
      max_length: most tokens to emit, EOS included.
      stop: texts that end a row where one of them is complete, within the
        loop; the row's text is then cut in front of it. The token that
        completed it, and what that brings along, stays among the `tokens`. A
        special token ('<end_of_turn>') is looked for by its name.
      confidence_temperatures: the drafter's and the verifier's, as
        `speccascade calibrate` finds them: the confidences that decide (the
        rule's, BiLD's fallback and rollback, that of a sequence) are those of
        logits divided by them, untruncated. The two laws that tokens are
        drawn from, and D_TV between them, do not change.
      input_length: width that the inputs are padded or cut to; by default the
        smallest bucket that holds them all, without cutting.
      row_ids: identities of the rows, so that an example draws the same
        randomness in any batch; by default 0 .. B-1.
      trace: also return both models' probabilities of the output tokens.
    """
    if model not in (PAIR, DRAFTER, VERIFIER):
      raise ValueError(
        f"model must be 'pair', 'drafter' or 'verifier', got {model!r}."
      )
    if model != VERIFIER and self.drafter is None:
      raise ValueError(
        f'model is {model!r}, but no drafter has been loaded: give one to '
        "load_pair, or decode with model='verifier'."
      )
    given = {'fallback': fallback, 'quantile': quantile}
    given = {name: value for name, value in given.items() if value is not None}
    if model == PAIR:
      if rule is None and method == 'speculative':
        rule = deferral.verifier_only
      calibrated = confidence_temperatures is not None
      options = loops.check(method, rule, verification, given, calibrated)
      options['confidence_temperatures'] = confidence_temperatures
    elif given or method != 'speculative' or confidence_temperatures:
      raise ValueError(
        f'The {model} decodes alone: it takes no method {method!r} and none of '
        f'its options, got {given}, {confidence_temperatures=}.'
      )
    scaling = distributions.Scaling(
      greedy=bool(temperature == 0),
      top_k=top_k,
      top_p=top_p,
      min_p=min_p,
      eta=eta,
    )
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    stops = self._stop_table(stop) if stop else None
    inputs, truncated = self._encode(texts, input_length)
    if self.prefixes and not all(t.startswith(self.prefixes) for t in texts):
      # Without the text itself, so that Python says it once, not a batch.
      warnings.warn(
        'An input begins with no task that these models were trained for, so '
        f'do not trust the answer. Put one of {self.prefixes} in front of '
        'every text (--prefix on the command line).',
        stacklevel=2,
      )
    keys = _row_keys(key, len(texts), row_ids)
    common: dict[str, Any] = dict(
      max_length=max_length, scaling=scaling, stops=stops, trace=trace
    )
    if model == PAIR:
      assert self.drafter is not None  # Checked above.
      loop = loops.LOOPS[method]
      if loop.takes_rule:
        options['rule'] = rule
      if loop.drafts_blocks:
        options['gamma'] = gamma
      if loop.takes_verification:
        options['verify'] = verification
      generation = _DECODE[method](
        self.drafter.step,
        self.verifier.step,
        self.drafter.params,
        self.verifier.params,
        inputs,
        keys,
        alpha,
        temperature,
        **options,
        **common,
      )
    else:
      alone = self.verifier
      if model == DRAFTER and self.drafter is not None:
        alone = self.drafter
      generation = autoregressive.decode(
        alone.step,
        alone.params,
        inputs,
        keys,
        temperature,
        role=base.Provenance[model.upper()],
        **common,
      )
    return self._output(
      jax.device_get(generation),
      truncated,
      alone=model != PAIR,
      judged=model == PAIR and loops.LOOPS[method].judges,
      stop=stop,
    )

  def call_times(
    self, widths: Sequence[int], *, input_length: int, max_length: int
  ) -> dict[str, float]:
    """Milliseconds of single model calls at batch size 1, by name.

    Args:
      widths: tokens that a verifier call scores; gamma + 1 is that of a block.
      input_length: width of the inputs, as in `generate`.
      max_length: likewise.

    Returns:
      'drafter_start', 'verifier_start', 'drafter_1' for a drafter step, and
      'verifier_K' for each K of `widths`. See `decoding.call_times`.
    """
    if self.drafter is None:
      raise ValueError('No drafter has been loaded, so that none can be timed.')
    # The first calls of a program find the caches cold: with 16 a program, a
    # verifier step of the shipped pair comes out 1.4 times as long.
    calls = 64
    programs = {
      f'{name}_{call}': program
      for name, model, of in (
        (DRAFTER, self.drafter, (1,)),
        (VERIFIER, self.verifier, widths),
      )
      for call, program in call_times_lib.programs(
        model.step,
        model.params,
        of,
        calls=calls,
        input_length=input_length,
        max_length=max_length,
      ).items()
    }
    return call_times_lib.quickest_ms(programs, calls=calls, repeats=5)

  def judge(
    self,
    texts: Sequence[str],
    targets: Sequence[str],
    *,
    model: str,
    temperatures: Sequence[float],
    max_length: int,
    input_length: int,
    ends: bool = True,
  ) -> Judgement:
    """How sure a model is of given texts, and whether rightly.

    Args:
      texts: B inputs, as for `generate`.
      targets: what they are answered with. One that continues a prompt
        (`bos_first`) has the space in front that belongs between the two.
      model: 'drafter' or 'verifier'.
      temperatures: K, above 0, that logits are divided by.
      max_length: tokens of a target that are judged at most, EOS included.
      input_length: width that the inputs are padded or cut to.
      ends: targets end with EOS, which is judged as well. Not where outputs
        end at stop sequences, so that a model need not know an EOS.
    """
    judging = {DRAFTER: self.drafter, VERIFIER: self.verifier}.get(model)
    if judging is None:
      raise ValueError(
        f"model is {model!r}; it must be 'drafter' or 'verifier', and loaded."
      )
    inputs, truncated = self._encode(texts, input_length)
    tokens = np.zeros((len(inputs), max_length), np.int32)
    lengths = np.zeros(len(inputs), np.int32)
    end = [self.vocabulary.eos_id] if ends else []
    for i, target in enumerate(targets):
      ids = [*self.vocabulary.encode(target), *end]
      lengths[i] = len(ids)
      tokens[i, : len(ids)] = ids[:max_length]
    found = jax.device_get(
      teacher_forced.judge(
        judging.step,
        judging.params,
        inputs,
        tokens,
        np.asarray(temperatures, np.float32),
      )
    )
    return Judgement(
      confidence=found.confidence,
      surprisal=found.surprisal,
      correct=found.correct,
      there=np.arange(max_length) < lengths[:, None],
      truncated=truncated | (lengths > max_length),
    )

  def pieces(self, tokens: Sequence[int]) -> list[str]:
    """The vocabulary's piece of every token, for display."""
    return self.vocabulary.pieces(tokens)

  def _encode(
    self, texts: Sequence[str], input_length: int | None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Token ids `[B, S]` of each row, and which rows were cut."""
    if isinstance(texts, str) or not texts:
      raise ValueError(
        f'texts must be a non-empty list of strings, got {texts!r}.'
      )
    rows = [self.framing.input(text) for text in texts]
    longest = max(map(len, rows))
    if input_length is None:
      fitting = [b for b in _INPUT_BUCKETS if b >= longest]
      input_length = fitting[0] if fitting else longest
    input_length = static.positive_integer('input_length', input_length)
    inputs = np.zeros((len(rows), input_length), np.int32)
    for i, row in enumerate(rows):
      row = self.framing.cut(row, input_length)
      inputs[i, : len(row)] = row
    return inputs, np.array([len(row) > input_length for row in rows])

  def _output(
    self,
    generation: base.Generation,
    truncated: np.ndarray,
    stop: tuple[str, ...],
    **kind: bool,
  ) -> Output:
    counters = generation.counters
    rows = zip(generation.tokens, generation.lengths, strict=True)
    texts = [self.vocabulary.decode(row[:n]) for row, n in rows]
    return Output(
      texts=[_before(stop, text) for text in texts],
      tokens=generation.tokens,
      lengths=generation.lengths,
      provenance=generation.provenance,
      stats={
        field.name: getattr(counters, field.name)
        for field in dataclasses.fields(counters)
      }
      | decoding_stats.rates(counters, generation.lengths, **kind),
      truncated=truncated,
      drafter_probs=generation.drafter_probs,
      verifier_probs=generation.verifier_probs,
    )

  def _stop_table(self, stop: tuple[str, ...]) -> stopping.StopTable:
    if not all(stop):
      raise ValueError(f'stop is {stop!r}; an empty text ends nothing.')
    return _stop_table(self.vocabulary, stop, self.verifier.step.vocab_size)


# A large vocabulary takes about a second.
@functools.lru_cache(maxsize=8)
def _stop_table(
  vocabulary: vocabularies.Vocabulary, stop: tuple[str, ...], vocab_size: int
) -> stopping.StopTable:
  stops = [text.encode() for text in stop]
  return stopping.build(stops, vocabulary.surfaces, vocab_size)


def _before(stop: tuple[str, ...], text: str) -> str:
  found = [i for i in map(text.find, stop) if i >= 0]
  return text[: min(found, default=len(text))]


def _row_keys(
  key: int | base.Array, rows: int, row_ids: Sequence[int] | None
) -> base.Array:
  """One key a row: `key` folded with the row's identity."""
  if isinstance(key, (int, np.integer)):
    key = jax.random.key(int(key))
  ids = np.arange(rows) if row_ids is None else np.asarray(row_ids)
  if ids.shape != (rows,):
    raise ValueError(
      f'row_ids must name each of the {rows} texts, got shape {ids.shape}.'
    )
  return _fold(key, ids)


# Jitted: op by op it would cost as much as several steps of a small drafter.
_fold = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))
