"""What `speccascade tune` leaves: two gin files, and all figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from speccascade_jax.evaluation import candidates as candidates_lib
from speccascade_jax.evaluation import choosing
from speccascade_jax.evaluation import results
from speccascade_jax.evaluation import tuning
from speccascade_jax.launch import chosen
from speccascade_jax.launch import tuning_texts


@dataclasses.dataclass(frozen=True)
class Found:
  """What came of a search.

  Attributes:
    constraint: what was asked for.
    clock: see `tuning.search`.
    rungs: of the search.
    picked: the choice, as the last rung has it.
    confirmed: the choice on the held-out examples.
    searched: on what, in words.
    held_out: likewise.
    num_held_out: examples.
    circumstances: what was searched with what, as JSON.
  """

  constraint: choosing.Constraint
  clock: str
  rungs: Sequence[tuning.Rung]
  picked: candidates_lib.Candidate
  confirmed: candidates_lib.Candidate
  searched: str
  held_out: str
  num_held_out: int
  circumstances: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Files:
  """generate.gin, evaluate.gin and tune.json in a folder."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.generate = folder / 'generate.gin'
    self.evaluate = folder / 'evaluate.gin'
    self.json = folder / 'tune.json'

  def remove(self) -> bool:
    """Leaves nothing that could be taken for the outcome of this start.

    Returns:
      Whether there was the choice of an earlier one.
    """
    found = [
      path
      for path in (self.json, self.generate, self.evaluate)
      if path.exists()
    ]
    for path in found:
      path.unlink()
    return bool(found)

  def write(self, found: Found, setting: chosen.Setting) -> None:
    """Writes all three, replacing those of an earlier start."""
    self.folder.mkdir(parents=True, exist_ok=True)
    told = [
      f'{found.confirmed.point}: the choice of `speccascade tune` for',
      f'{found.constraint}, on {found.searched}.',
      f'On {found.held_out}, which had no part in it:',
    ]
    told += [
      f'  {line}'
      for line in tuning_texts.confirmed(
        found.confirmed, found.constraint, found.clock, found.num_held_out
      )
    ]
    generate = chosen.for_generate(
      setting,
      header=[
        *told,
        '',
        f'  speccascade generate --gin_file={self.generate} TEXT',
        '',
      ],
    )
    evaluate = chosen.for_evaluate(
      setting,
      run_dir=str(self.folder / 'evaluate'),
      header=[
        *told,
        '',
        f'  speccascade evaluate --gin_file={self.evaluate}',
        '',
      ],
    )
    text = json.dumps(_content(found), indent=2) + '\n'
    results.write_atomically(self.generate, generate)
    results.write_atomically(self.evaluate, evaluate)
    # Last: where it is, all three are of one start.
    results.write_atomically(self.json, text)


def _content(found: Found) -> dict[str, Any]:
  constraint, confirmed = found.constraint, found.confirmed
  return {
    **found.circumstances,
    'constraint': {
      'quality': constraint.quality,
      'latency': constraint.latency,
      'confidence': constraint.confidence,
    },
    'clock': found.clock,
    'chosen': confirmed.point.config(),
    'searched': found.searched,
    'rungs': [
      {
        'num_examples': rung.num_examples,
        'candidates': [
          _figures(c, constraint)
          | {'wins': rung.wins[c.key], 'goes_on': c.key in rung.kept}
          for c in rung.candidates
        ],
        'undefined': [str(point) for point in rung.undefined],
      }
      for rung in found.rungs
    ],
    'held_out': {
      'examples': found.held_out,
      'num_examples': found.num_held_out,
      **_figures(confirmed, constraint),
      'quality_share_interval': confirmed.share_interval(),
      'relative_latency_interval': confirmed.latency_interval(),
      'verdict': tuning_texts.verdict(confirmed, constraint),
    },
  }


def _figures(
  candidate: candidates_lib.Candidate, constraint: choosing.Constraint
) -> dict[str, Any]:
  return {
    'key': candidate.key,
    'name': str(candidate.point),
    'quality': candidate.quality,
    'verifier_quality': candidate.reference,
    'quality_share': candidate.share,
    'relative_latency': candidate.latency,
    'timed_apart': candidate.timed_apart,
    'starts': sorted(candidate.starts),
    'meets_share': constraint.trust(candidate),
  }
