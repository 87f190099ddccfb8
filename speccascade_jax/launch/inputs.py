"""What commands read: a pair of models, and a task's examples and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any, Literal

from speccascade_jax import loading
from speccascade_jax import pair as pairs
from speccascade_jax.checkpoints import load as checkpoints
from speccascade_jax.evaluation import base
from speccascade_jax.launch import model_names
from speccascade_jax.launch import quiet
from speccascade_jax.models import families
from speccascade_jax.models import int8

# A shipped pair's name, or the arguments of `load_pair` and perhaps 'models',
# names of drafter and verifier in gin/models that the checkpoints must have
# the shapes of. {'name': 'debian', 'verifier_weights': 'int8'} is a shipped one
# with a setting.
PairName = str | Mapping[str, Any]
ROLES = ('drafter', 'verifier')
# To run programs that a model wrote, as the metric of such tasks does.
Permission = bool | Literal['with_network']


def load_pair(pair: PairName) -> pairs.Pair:
  """The pair that a config names: 'debian', or {'drafter': DIR, ...}."""
  if isinstance(pair, str):
    return loading.load_pair(pair)
  given = dict(pair)
  # Before the weights, which may take minutes.
  for role, name in named_models(pair).items():
    if given.get(role) is not None:
      found = checkpoints.config_of(given[role])
      model_names.check(name, found, given[role])
  given.pop('models', None)
  return loading.load_pair(**given)


def with_weights(pair: PairName, weights: Mapping[str, str | None]) -> PairName:
  """The pair with what `weights` says of its weights, which may be nothing.

  Args:
    pair: as a config names it.
    weights: 'drafter_weights' and 'verifier_weights', see `loading.load_pair`.
  """
  said = {name: kept for name, kept in weights.items() if kept is not None}
  if not said:
    return pair
  return {**({'name': pair} if isinstance(pair, str) else pair), **said}


def weights_of(pair: PairName) -> dict[str, str | None]:
  """How the models' weights are kept, by role; None is the pair's dtype."""
  given: Mapping[str, Any] = {} if isinstance(pair, str) else pair
  found = {role: given.get(f'{role}_weights') for role in ROLES}
  for role, kept in found.items():
    int8.check(f'{role}_weights', kept)
  return found


def named_models(pair: PairName) -> dict[str, str]:
  """The pair's 'models' by role, if it says what they are.

  Raises:
    ValueError: if it names other than two.
  """
  names = None if isinstance(pair, str) else pair.get('models')
  if names is None:
    return {}
  if isinstance(names, str) or len(names) != len(ROLES):
    raise ValueError(
      f"models of the pair is {names!r}; it must name the drafter's and the "
      "verifier's fragment in gin/models, such as ('t5_1_1_small', "
      "'t5_1_1_large')."
    )
  return dict(zip(ROLES, names))


def pair_name(pair: PairName) -> str:
  """How results call the pair."""
  if isinstance(pair, str):
    return pair
  names = [k for k in ROLES if k in pair]
  name = pair.get('name') or ' -> '.join(_path_name(pair[k]) for k in names)
  kept = [f'{role} {w}' for role, w in weights_of(pair).items() if w]
  return f'{name} ({", ".join(kept)})' if kept else name


def _path_name(path: str | os.PathLike[str]) -> str:
  """Without a slash at the end; both of those in 'hf://' are kept."""
  text = os.fspath(path)
  return text if '://' in text else str(pathlib.PurePath(text))


def role_names(pair: PairName) -> dict[str, str]:
  """How a benchmark calls the two models, by role."""
  shipped = pair if isinstance(pair, str) else pair.get('name')
  if shipped is not None:
    names = {role: f'{shipped} {role}' for role in ROLES}
  else:
    assert not isinstance(pair, str)
    names = {r: str(pair[r]) for r in ROLES if pair.get(r) is not None}
  kept = weights_of(pair)
  return {r: f'{n} ({kept[r]})' if kept[r] else n for r, n in names.items()}


def random_name(config: families.Config) -> str:
  """How it calls random weights of a shape."""
  count = families.num_parameters(config) / 1e6
  return f'random {families.name_of(config)} of {count:.1f}M parameters'


def load_task(
  task: str,
  split: str,
  num_examples: int | None,
  seed: int,
  data_dir: str | None = None,
) -> tuple[list[base.Example], list[base.MetricFn]]:
  """Examples of a seqio task, and its metrics.

  Args:
    task: name of a seqio task: of `speccascade_jax.data`, or one's own from
      a module that the gin file imports.
    split: one of its splits.
    num_examples: that many, drawn at random without replacement and kept in
      the order of the split; None takes all.
    seed: of the draw.
    data_dir: where data sets lie that do not ship; None: see `data.prepared`.

  Raises:
    ValueError: if the task, the split or so many examples do not exist.
    FileNotFoundError: if the data set has not been prepared.
  """
  rows = _rows(task, split, num_examples, seed, data_dir)
  import seqio

  examples = [
    base.Example(
      example=row['example'],
      source=row['source'],
      target=row['target'],
    )
    for row in rows
  ]
  return examples, list(seqio.TaskRegistry.get(task).metric_fns)


def load_completions(
  task: str,
  split: str,
  num_examples: int | None,
  seed: int,
  data_dir: str | None = None,
) -> list[base.Example]:
  """As `load_task`; the targets are the texts that models are trained to write.

  Behind a prompt that is to be continued they begin with the space that
  belongs there, and they are texts whatever the metrics compare with.
  """
  return [
    base.Example(
      example=row['example'],
      source=row['source'],
      target=row['completion'],
    )
    for row in _rows(task, split, num_examples, seed, data_dir)
  ]


def splits(task: str) -> tuple[str, ...]:
  """Names of a task's splits.

  Raises:
    ValueError: if there is no such task.
  """
  quiet.import_seqio()
  from speccascade_jax.data import task_texts

  return task_texts.splits(task)


def _rows(task, split, num_examples, seed, data_dir) -> list[dict[str, Any]]:
  # Here, because TensorFlow takes seconds and generating needs neither.
  quiet.import_seqio()
  from speccascade_jax.data import task_texts

  set_data_dir(data_dir)
  with quiet.native_stderr_closed():
    return task_texts.examples(task, split, num_examples, seed)


def set_data_dir(data_dir: str | None) -> None:
  """Says to all tasks where their data sets lie; None leaves it as it is."""
  if data_dir is not None:
    quiet.import_seqio()
    import seqio

    seqio.set_tfds_data_dir_override(data_dir)


def permitted(
  metric_fns: Sequence[base.MetricFn], run_programs: Permission, command: str
) -> list[base.MetricFn]:
  """The metrics, those that run programs being allowed to if the user says so.

  Args:
    metric_fns: of a task.
    run_programs: what the user says.
    command: whose parameter says it.

  Raises:
    ValueError: if one of them would run programs and the user does not say so.
    sandbox.SandboxError: if they cannot be run safely on this system.
  """
  if not any(map(runs_programs, metric_fns)):
    return list(metric_fns)
  if not run_programs:
    raise ValueError(
      'The metric of this task runs the programs that the model writes, in a '
      'sandbox, and only if you allow it: '
      f'--gin.{command}.run_programs=True.'
    )
  from speccascade_jax.data import programs

  return [
    programs.allowed(fn, run_programs) if runs_programs(fn) else fn
    for fn in metric_fns
  ]


def runs_programs(metric_fn: base.MetricFn) -> bool:
  """Whether a metric runs what the model wrote."""
  return getattr(metric_fn, 'runs_programs', False)


def stop_sequences(
  stop: str | Sequence[str] | None, task: str | None = None
) -> tuple[str, ...]:
  """What a config's `stop` says, which may be one text or several.

  Args:
    stop: the config's; None is the task's own, and () is none at all.
    task: the task, if there is one.

  Raises:
    ValueError: if it is neither, one of them is empty, or there is no such
      task.
  """
  if stop is None and task is not None:
    quiet.import_seqio()
    from speccascade_jax.data import task_texts

    stop = task_texts.stop_sequences(task)
  stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
  if not all(isinstance(text, str) and text for text in stops):
    raise ValueError(
      f'stop is {stop!r}; it must be a text or several, and none empty.'
    )
  return stops


def longest_source(pair: pairs.Pair, examples: Sequence[base.Example]) -> int:
  """Tokens of the longest source, end of sequence included."""
  return 1 + max(
    len(pair.vocabulary.encode(example.source)) for example in examples
  )
