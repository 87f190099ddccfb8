"""The small model pairs that ship with the package.

Each is a folder: `drafter/` and `verifier/` (native checkpoints), the
vocabulary `spiece.model`, and `MODEL_CARD.md` with data, recipe and scores.
"""

from __future__ import annotations

import pathlib

_ROOT = pathlib.Path(__file__).parent

# Pair -> task -> what the task's inputs begin with. The tasks' own module says
# the same, but importing it takes TensorFlow.
_DEBIAN = {
  'debian_en_de': 'translate English to German: ',
  'debian_synopsis': 'summarize: ',
}
PREFIXES = {'debian': _DEBIAN, 'debian_gemma': _DEBIAN}


def names() -> list[str]:
  """The shipped pairs."""
  return sorted(path.parent.name for path in _ROOT.glob('*/verifier'))


def paths(name: str) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
  """Drafter directory, verifier directory and vocabulary file of a pair."""
  if name not in names():
    raise ValueError(
      f'No shipped pair is called {name!r}; there are: '
      f'{", ".join(names()) or "none"}. For a pair of your own, give '
      'drafter=, verifier= and vocabulary= paths.'
    )
  folder = _ROOT / name
  return folder / 'drafter', folder / 'verifier', folder / 'spiece.model'
