"""Curves of a figure, and how each is told apart.

A method looks the same in every report: colour and marker go by its rule.
The colours are those of Okabe and Ito, which people with any of the common
colour vision deficiencies can tell apart; no two of the paper's main methods
share a marker, so that the figures also survive a black-and-white printer.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from speccascade_jax.reports import runs as runs_lib


@dataclasses.dataclass(frozen=True)
class Style:
  """Colours on a light and on a dark page, marker and line."""

  light: str
  dark: str
  marker: str  # matplotlib's.
  line: str = '-'
  hollow: bool = False

  @property
  def glyph(self) -> str:
    """The marker as a character, for HTML."""
    return _GLYPHS[self.marker]


@dataclasses.dataclass(frozen=True)
class Series:
  """One curve: a method at one gamma, its points by alpha.

  Attributes:
    name: for the legend; has the gamma where a sweep has several.
    label: of the method, as in the runs.
    style: how it is drawn.
    runs: trial means.
  """

  name: str
  label: str
  style: Style
  runs: tuple[runs_lib.Run, ...]


_GLYPHS = {
  'o': '\N{BLACK CIRCLE}',
  's': '\N{BLACK SQUARE}',
  '^': '\N{BLACK UP-POINTING TRIANGLE}',
  'v': '\N{BLACK DOWN-POINTING TRIANGLE}',
  '<': '\N{BLACK LEFT-POINTING TRIANGLE}',
  '>': '\N{BLACK RIGHT-POINTING TRIANGLE}',
  'D': '\N{BLACK DIAMOND}',
  'd': '\N{LOZENGE}',
  'P': '\N{HEAVY GREEK CROSS}',
  'X': '\N{HEAVY MULTIPLICATION X}',
  'p': '\N{BLACK PENTAGON}',
  'h': '\N{BLACK HEXAGON}',
  '*': '\N{BLACK STAR}',
}

# (light, dark) pairs; yellow is left out, it vanishes on white.
_BLUE = ('#0072b2', '#4ba3e0')
_VERMILION = ('#d55e00', '#ff7a33')
_GREEN = ('#009e73', '#2cc79a')
_PURPLE = ('#b5588f', '#e29ac4')
_SKY = ('#3a9bd6', '#8fd0f5')
_ORANGE = ('#d08c00', '#f0b43c')
_INK = ('#1d2733', '#eef2f6')
_GREY = ('#66717e', '#a3aebb')

VERIFIER = Style(*_INK, '*')
DRAFTER = Style(*_GREY, 'p')
# By truncation or loop of the method, where it has one, and else by rule.
_OWN: dict[str | None, Style] = {
  'verifier_only': Style(*_INK, 'D'),
  'drafter_only': Style(*_GREY, 'd'),
  'lossy': Style(*_ORANGE, 's'),
  'lossy_exact': Style(*_ORANGE, 'h', '--'),
  'chow': Style(*_BLUE, 'v'),
  'chow_log': Style(*_BLUE, '<', '--'),
  'diff': Style(*_GREEN, '^'),
  'diff_log': Style(*_GREEN, '>', '--'),
  'opt': Style(*_VERMILION, 'o'),
  'opt_log': Style(*_VERMILION, 'X', '--'),
  'token_v1': Style(*_SKY, 'X', '-.'),
  'token_v2': Style(*_PURPLE, 'd', '-.'),
  'token_v3': Style(*_PURPLE, 'P'),
  'typical': Style(*_GREEN, 's', ':'),
  'bild_fixed': Style(*_SKY, 's', '--'),
  'ensemble': Style(*_BLUE, 'P', ':'),
  'bild': Style(*_SKY, 'D'),
  'token_cascade': Style(*_BLUE, 'X', '-.'),
  'oracle_cascade': Style(*_GREEN, 'o', '-.'),
  'sequence_cascade': Style(*_ORANGE, 'v', '-.'),
  'top_k': Style(*_GREY, '^', ':'),
  'top_p': Style(*_GREY, 'v', ':'),
  'min_p': Style(*_GREY, '<', ':'),
  'eta': Style(*_GREY, '>', ':'),
}
# Rules of the user's own take what is free, in this order.
_OTHERS = tuple(
  Style(*colour, marker, line)
  for line in ('-', ':', '--')
  for colour, marker in (
    (_SKY, 'h'),
    (_GREEN, 'X'),
    (_ORANGE, '>'),
    (_PURPLE, '<'),
    (_BLUE, 'd'),
    (_GREY, 's'),
  )
)
_GAMMA_LINES = ('-', '--', ':', '-.')


def of_group(
  group: runs_lib.Group, sweep: runs_lib.Sweep, gamma: int | None = None
) -> list[Series]:
  """The curves of one panel, in the order of display; references excepted.

  Args:
    group: the panel's runs.
    sweep: all runs, so that styles agree from panel to panel.
    gamma: the curves of this gamma alone, and of what drafts no blocks; their
      names need not say it.
  """
  pairs = [run for run in sweep.runs if run.alone is None]
  gammas = sorted({run.gamma for run in pairs if run.gamma is not None})
  styles = _styles(pairs)
  found: dict[tuple, list[runs_lib.Run]] = {}
  for run in runs_lib.trial_means(group.runs):
    if run.alone is None:
      found.setdefault((run.label, run.gamma), []).append(run)
  if gamma is not None:
    gammas = [gamma]
    found = {k: points for k, points in found.items() if k[1] in (gamma, None)}
  return [
    _series(label, of, points, styles[label], gammas)
    for (label, of), points in found.items()
  ]


def style_of(run: runs_lib.Run, sweep: runs_lib.Sweep) -> Style:
  """The style of the curve, or of the reference point, that a run is in."""
  if run.alone is not None:
    return {'verifier': VERIFIER, 'drafter': DRAFTER}[run.alone]
  return _styles([r for r in sweep.runs if r.alone is None])[run.label]


def _series(label, gamma, points, style, gammas) -> Series:
  name = label
  if len(gammas) > 1 and gamma is not None:
    name = f'{label}, gamma {gamma}'
    # Hollow as well, since a method without alpha is a point without a line.
    i = gammas.index(gamma)
    line = _GAMMA_LINES[i % len(_GAMMA_LINES)]
    style = dataclasses.replace(style, line=line, hollow=i % 2 == 1)
  return Series(name, label, style, tuple(sorted(points, key=_alpha)))


def _alpha(run: runs_lib.Run) -> float:
  return 0.0 if run.alpha is None else run.alpha


def _styles(pairs: Sequence[runs_lib.Run]) -> dict[str, Style]:
  """A style for each label: the rule's own unless another label has it.

  A rule of calibrated confidences is hollow and dotted, where gammas do not
  take lines and faces for themselves.
  """
  several = len({run.gamma for run in pairs} - {None}) > 1
  styles: dict[str, Style] = {}
  for run in pairs:
    if run.label in styles:
      continue
    taken = set(styles.values())
    free = [s for s in _OTHERS if s not in taken] or [_OTHERS[0]]
    method = None if run.method == 'speculative' else run.method
    own = _OWN.get(run.truncation or method or run.rule)
    if own and run.confidence_temperatures and not several:
      own = dataclasses.replace(own, line=':', hollow=True)
    styles[run.label] = own if own and own not in taken else free[0]
  return styles
