"""Parts of a model's parameters: trained or not, its own or its teacher's.

A part is named by its place in the tree: 'token_embedder' is everything under
it, 'decoder/layers_0' one layer. What is not trained is no part of the train
state, so that it has no gradient, no optimizer state, no moving average and no
copy in a checkpoint; the loss gets it beside the state and puts the two
together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from flax import traverse_util
import jax

from speccascade_jax import base
from speccascade_jax.models import families
from speccascade_jax.training import losses
from speccascade_jax.training import train_step

# Shape of every parameter by its path, such as 'decoder/final_norm/scale'; see
# `checkpoints.translate.shapes`.
Shapes = Mapping[str, tuple[int, ...]]

OWN, TEACHER = 'own', 'teacher'


def paths(names: Collection[str], shapes: Shapes, what: str) -> set[str]:
  """The parameters that `names` stand for.

  Args:
    names: of parts.
    shapes: of the model.
    what: begins the message of an error, such as 'train.frozen'.

  Raises:
    ValueError: if a name matches nothing.
  """
  return {path for name in names for path in _under(name, shapes, what)}


def copies(
  names: Mapping[str, str], student: Shapes, teacher: Shapes
) -> dict[str, str]:
  """Parameters of the student that start as some of the teacher's.

  Args:
    names: part of the student -> part of the teacher.
    student: its shapes.
    teacher: its shapes.

  Returns:
    Path in the student -> path in the teacher.

  Raises:
    ValueError: if a part is not there, the two are built differently, or a
      parameter has another shape.
  """
  found: dict[str, str] = {}
  for ours, theirs in names.items():
    here = _under(ours, student, 'train.from_teacher')
    there = _under(theirs, teacher, "train.from_teacher, of the teacher's,")
    pairs = {path: theirs + path.removeprefix(ours) for path in here}
    lacking = set(pairs.values()) ^ set(there)
    if lacking:
      raise ValueError(
        f'train.from_teacher: {ours} of the student and {theirs} of the '
        f'teacher are built differently; {min(lacking)} is in one alone.'
      )
    for path, source in pairs.items():
      if student[path] != teacher[source]:
        raise ValueError(
          f"train.from_teacher: the teacher's {source} is "
          f"{teacher[source]} and the student's {path} {student[path]}. Give "
          "the student the teacher's size there, or leave this part out."
        )
    found |= pairs
  return found


def split(
  params: base.Params, chosen: Collection[str]
) -> tuple[base.Params, base.Params]:
  """`params` without the paths in `chosen`, and those alone; no copies."""
  flat = traverse_util.flatten_dict(params, sep='/')
  rest = {path: flat[path] for path in flat if path not in chosen}
  return _tree(rest), _tree(
    {path: flat[path] for path in flat if path in chosen}
  )


def merge(first: base.Params, second: base.Params) -> base.Params:
  """The tree of which the two are parts; no copies."""
  both = [traverse_util.flatten_dict(tree, sep='/') for tree in (first, second)]
  return _tree(both[0] | both[1])


def init_except(
  config: families.Config, key: base.Array, excepted: Collection[str]
) -> base.Params:
  """Fresh parameters without the paths in `excepted`, which are not made."""
  # What a jitted function does not return it does not compute.
  return jax.jit(lambda key: split(families.init(config, key), excepted)[0])(
    key
  )


def borrow(
  params: base.Params, copied: Mapping[str, str], teacher: base.Params
) -> base.Params:
  """`params` with those in `copied`, see `copies`, as the teacher's arrays."""
  flat = traverse_util.flatten_dict(teacher, sep='/')
  shared = {path: flat[source] for path, source in copied.items()}
  return merge(params, _tree(shared))


def loss_of_trained(loss: train_step.Loss) -> train_step.Loss:
  """`loss` as a function of the trained parameters alone.

  Its second argument is {'own': the others, 'teacher': what `loss` takes}.
  """

  def evaluate(
    params: base.Params,
    frozen: base.Params,
    batch: train_step.Batch,
    key: base.Array | None,
  ) -> losses.Sums:
    return loss(merge(params, frozen[OWN]), frozen[TEACHER], batch, key)

  return evaluate


def _under(name: str, shapes: Shapes, what: str) -> list[str]:
  found = [path for path in shapes if f'{path}/'.startswith(f'{name}/')]
  if not found:
    raise ValueError(
      f'{what} names {name!r}, but the model has no such part; it has '
      f'{", ".join(_parts(shapes))}.'
    )
  return found


def _parts(shapes: Iterable[str]) -> list[str]:
  """What a name could have been, in the order of the tree, two levels deep."""
  return list(dict.fromkeys('/'.join(path.split('/')[:2]) for path in shapes))


def _tree(flat: Mapping[str, base.Array]) -> base.Params:
  return traverse_util.unflatten_dict(flat, sep='/')
