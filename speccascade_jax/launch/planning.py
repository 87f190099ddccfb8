"""What a configuration will take: memory, runs, calls and time.

Nothing is loaded. A pair's shapes are read off its checkpoints where these are
on this machine, else they are those of the models that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
from typing import Any

from speccascade_jax import footprint
from speccascade_jax import loading
from speccascade_jax import loops
from speccascade_jax import pair as pairs
from speccascade_jax import zoo
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.evaluation import expectation
from speccascade_jax.evaluation import methods as methods_lib
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import inputs
from speccascade_jax.launch import measured as measured_lib
from speccascade_jax.launch import model_names
from speccascade_jax.models import families

# Where a config leaves it to the examples, which are not read here.
INPUT_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Job:
  """What a command decodes.

  Attributes:
    points: the runs.
    texts: of each; None where the data says how many there are.
    pair: as the config names it.
    task: that the texts are of; None if they are of none.
    extent: of the texts that are decoded together.
    assumed: what the config does not say, in words.
  """

  points: Sequence[methods_lib.RunPoint]
  texts: Sequence[int | None]
  pair: inputs.PairName
  task: str | None
  extent: footprint.Extent
  assumed: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is to be expected; None is what cannot be told.

  Attributes:
    memory: parts that are there at once.
    largest: what has the caches and logits among them, in words.
    num_runs: points of the grid.
    num_texts: over all of them.
    most: calls of all runs, at most.
    expected: likewise, as measured runs have taken them.
    num_expected: runs that a measured one tells the calls of; the others are
      expected to take the most.
    most_s: what the calls take at most, one after the other.
    expected_s: as expected.
    notes: further facts, a sentence each.
  """

  memory: Sequence[footprint.Part]
  largest: str = ''
  num_runs: int | None = None
  num_texts: int | None = None
  most: expectation.Calls | None = None
  expected: expectation.Calls | None = None
  num_expected: int = 0
  most_s: float | None = None
  expected_s: float | None = None
  notes: Sequence[str] = ()


def of_job(job: Job, found: Sequence[measured_lib.Found] = ()) -> Plan:
  """The plan of what decodes, as far as what was measured tells of it."""
  configs, dtype = shapes(job.pair)
  names: list[str | Mapping[str, str]] = [
    inputs.pair_name(job.pair),
    inputs.role_names(job.pair),
  ]
  weights = inputs.weights_of(job.pair)
  if not any(weights.values()):
    # Random weights of these shapes, which bench may have timed.
    names.append({r: inputs.random_name(c) for r, c in configs.items()})
  known = measured_lib.apt(found, measured_lib.Wanted(names, dtype, job.task))
  models = footprint.abstract_pair(configs, dtype, weights)
  largest, parts = _largest(job, models)
  length = job.extent.max_length
  most = [expectation.at_most(point, length) for point in job.points]
  own = [
    expectation.expected(point, known.runs, length) for point in job.points
  ]
  likely = [e or m for e, m in zip(own, most)]
  counted = None not in job.texts
  num_expected = sum(e is not None for e in own)
  return Plan(
    memory=[*footprint.of_parameters(models), *parts],
    largest=str(largest),
    num_runs=len(job.points),
    num_texts=sum(n or 0 for n in job.texts) if counted else None,
    most=_total(most, job) if counted else None,
    expected=_total(likely, job) if counted and num_expected else None,
    num_expected=num_expected,
    most_s=_seconds(most, job, known),
    expected_s=_seconds(likely, job, known) if num_expected else None,
    notes=[*job.assumed, *known.notes, *_untimed(job, known)],
  )


def shapes(pair: inputs.PairName) -> tuple[dict[str, families.Config], str]:
  """Shapes of a pair's models by role, and the type they are computed in.

  Raises:
    ValueError: if a checkpoint is not on this machine and no model is named.
  """
  given: Mapping[str, Any] = {'name': pair} if isinstance(pair, str) else pair
  if given.get('name') is not None:
    given = {**given, **dict(zip(inputs.ROLES, zoo.paths(given['name'])))}
  named = inputs.named_models(pair)
  found = {
    role: _shape(str(given[role]), named.get(role))
    for role in inputs.ROLES
    if given.get(role) is not None
  }
  return found, given.get('dtype') or loading.default_dtype()


def _shape(path: str, name: str | None) -> families.Config:
  remote = path.startswith('hf://')  # To look would be to download.
  if not remote and ('://' in path or os.path.exists(path)):
    config = checkpoints.config_of(path)
    if name is not None:
      model_names.check(name, config, path)
    return config
  if name is None:
    raise ValueError(
      f'{path} is not on this machine, and the pair does not say what model '
      "it is: add 'models' to it, names of gin/models for drafter and "
      'verifier.'
    )
  return model_names.config(name)


def _largest(
  job: Job, models: Mapping[str, pairs.Model]
) -> tuple[methods_lib.RunPoint, list[footprint.Part]]:
  """The run that needs most beside the parameters, and what it needs."""
  candidates = []
  tried = set()
  for point in job.points:
    shape = (point.model, point.method, point.gamma)
    if shape not in tried:
      tried.add(shape)
      room = footprint.rooms(*shape, job.extent.max_length)
      parts = footprint.of_decoding(models, room, job.extent)
      candidates.append((point, parts))
  return max(candidates, key=lambda found: footprint.total(found[1]))


def _total(calls: Sequence[expectation.Calls], job: Job) -> expectation.Calls:
  total = expectation.NONE
  for of_text, count in zip(calls, job.texts):
    total += of_text * (count or 0)
  return total


def _seconds(
  calls: Sequence[expectation.Calls], job: Job, known: measured_lib.Known
) -> float | None:
  """None if not all that is called has been timed, or not one by one."""
  if known.call_times is None or job.extent.batch != 1:
    return None
  total = 0.0
  for of_text, point, count in zip(calls, job.points, job.texts):
    spent = expectation.milliseconds(
      of_text, point, known.call_times, max_length=job.extent.max_length
    )
    if spent is None or count is None:
      return None
    total += spent * count / 1e3
  return total


def _untimed(job: Job, known: measured_lib.Known) -> list[str]:
  if known.call_times is None:
    return []
  if job.extent.batch != 1:
    return [
      'No duration: calls were timed at batch size 1, and this decodes '
      f'{job.extent.batch} texts together.'
    ]
  untold = (
    []
    if known.begun
    else [
      'Beginning a text (encoder, prompt) was not timed and is left out of the '
      'duration.'
    ]
  )
  lacking = [
    str(point)
    for point in job.points
    if expectation.milliseconds(
      expectation.NONE,
      point,
      known.call_times,
      max_length=job.extent.max_length,
    )
    is None
  ]
  if not lacking:
    return untold
  return [
    'No duration: no call as wide as those of '
    f'{lacking[0]} has been timed ({len(lacking)} of {len(job.points)} runs).'
  ]


def _extent(
  arguments: Mapping[str, Any], batch: int, input_length: int | None
) -> tuple[footprint.Extent, list[str]]:
  own = arguments.get('input_length')
  assumed = []
  if own is None:
    own = input_length or INPUT_LENGTH
    assumed.append(
      f'The config leaves the input length to the examples: {own} tokens are '
      'assumed (--input_length).'
    )
  return footprint.Extent(batch, own, arguments['max_length']), assumed


def _of_all_methods(arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Arguments of `methods.expand` that every command calls alike."""
  names = (*methods_lib.TRUNCATIONS, 'confidence_temperatures')
  return {name: arguments.get(name) for name in names}


def _of_sweep(arguments: Mapping[str, Any], input_length: int | None) -> Job:
  points = methods_lib.expand(
    arguments['methods'],
    gammas=arguments['gammas'],
    temperatures=arguments['temperatures'],
    trials=arguments.get('trials', 1),
    **_of_all_methods(arguments),
  )
  extent, assumed = _extent(arguments, 1, input_length)
  texts = [arguments['num_examples']] * len(points)
  pair, task = arguments['pair'], arguments['task']
  return Job(points, texts, pair, task, extent, assumed)


def _of_tune(arguments: Mapping[str, Any], input_length: int | None) -> Job:
  points = methods_lib.expand(
    arguments['methods'],
    gammas=arguments['gammas'],
    temperatures=(arguments['temperature'],),
    **_of_all_methods(arguments),
  )
  extent, assumed = _extent(arguments, 1, input_length)
  most = [expectation.at_most(p, extent.max_length) for p in points]
  costs = [c.drafter_steps + c.verifier_calls for c in most]
  rungs = tuning.checked_rungs(arguments['rungs'])
  searched = tuning.most_texts(
    points, costs, rungs, arguments.get('keep', 1 / 3)
  )
  held_out = arguments.get('num_held_out', 500)
  assumed.append('The dearest candidates are assumed to stay in the search.')
  texts: list[int | None] = [*searched]
  # What is chosen is run on the held-out examples, and the verifier with it.
  dearest = max(range(len(points)), key=lambda i: costs[i])
  for i, point in enumerate(points):
    if point.is_reference or i == dearest:
      texts[i] = None if held_out is None else searched[i] + held_out
  pair, task = arguments['pair'], arguments['task']
  return Job(points, texts, pair, task, extent, assumed)


def _of_evaluate(arguments: Mapping[str, Any], input_length: int | None) -> Job:
  points = methods_lib.expand(
    [arguments['method']],
    gammas=(arguments.get('gamma', 4),),
    temperatures=(arguments['temperature'],),
    **_of_all_methods(arguments),
  )
  count, batch = arguments['num_examples'], arguments.get('batch_size', 32)
  # The last batch is filled up, and so is the only one.
  extent, assumed = _extent(arguments, batch, input_length)
  pair, task = arguments['pair'], arguments['task']
  return Job(points, [count], pair, task, extent, assumed)


def _of_generate(arguments: Mapping[str, Any], input_length: int | None) -> Job:
  paths = {k: v for k in inputs.ROLES if (v := arguments.get(k)) is not None}
  pair = arguments.get('pair') or paths or 'debian'
  alone = not isinstance(pair, str) and not {'drafter', 'name'} & set(pair)
  names = [f'{role}_weights' for role in inputs.ROLES]
  pair = inputs.with_weights(pair, {k: arguments.get(k) for k in names})
  model = arguments.get('model') or (pairs.VERIFIER if alone else pairs.PAIR)
  method = arguments.get('method', 'speculative')
  blocks = model == pairs.PAIR and loops.LOOPS[method].drafts_blocks
  point = methods_lib.RunPoint(
    label=model if model != pairs.PAIR else method,
    model=model,
    rule=arguments.get('rule'),
    verification=None,
    alpha=arguments.get('alpha', 0.0),
    gamma=arguments.get('gamma', 4) if blocks else None,
    temperature=arguments.get('temperature', 0.0),
    method=method,
  )
  batch = arguments.get('batch_size', 8)
  known = {'max_length': arguments.get('max_length', 128)}
  extent, assumed = _extent(known, batch, input_length)
  return Job([point], [None], pair, None, extent, assumed)


JOBS: dict[str, Callable[[Mapping[str, Any], int | None], Job]] = {
  'sweep': _of_sweep,
  'tune': _of_tune,
  'evaluate': _of_evaluate,
  'generate': _of_generate,
}
