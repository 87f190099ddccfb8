"""Generated text as an HTML page that shows who wrote which token.

Takes plain lists: a trace can be drawn from a file as well as from
`Pair.generate(..., trace=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import re
from typing import Any

from speccascade_jax.reports import page

# The values of `speccascade_jax.base.Provenance`.
DRAFTER, RESAMPLED, VERIFIER = 1, 2, 3
_SPACE = '\N{LOWER ONE EIGHTH BLOCK}'  # SentencePiece's mark of a word start.
_BYTE = re.compile(r'<0x([0-9A-Fa-f]{2})>\Z')


@dataclasses.dataclass(frozen=True)
class _Kind:
  name: str  # For the CSS class and the counters.
  short: str
  meaning: str


_KINDS = {
  DRAFTER: _Kind('drafter', 'Drafter', 'drafted, and kept'),
  RESAMPLED: _Kind(
    'resampled', 'Resampled', 'drawn in place of a rejected draft'
  ),
  VERIFIER: _Kind(
    'verifier', 'Verifier', "the verifier's own, behind a fully kept block"
  ),
}
_ALONE = {
  DRAFTER: _Kind('drafter', 'Drafter', 'the drafter decodes alone'),
  VERIFIER: _Kind('verifier', 'Verifier', 'the verifier decodes alone'),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """One generated text; the lists have one entry an output token.

  Attributes:
    source: the input.
    text: the output.
    pieces: SentencePiece pieces; U+2581 begins a word, '<0x41>' is a byte.
    provenance: 1 drafter, 2 resampled, 3 verifier.
    drafter_probs: unscaled probability of the token under the drafter, NaN
      where it did not score the position; or None.
    verifier_probs: likewise.
    counters: by name, of this row; NaN is left out.
  """

  source: str
  text: str
  pieces: Sequence[str]
  provenance: Sequence[int]
  drafter_probs: Sequence[float] | None = None
  verifier_probs: Sequence[float] | None = None
  counters: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in ('provenance', 'drafter_probs', 'verifier_probs'):
      values = getattr(self, name)
      if values is not None and len(values) != len(self.pieces):
        raise ValueError(
          f'{name} has {len(values)} entries for {len(self.pieces)} pieces.'
        )
    unknown = sorted({int(p) for p in self.provenance} - set(_KINDS))
    if unknown:
      raise ValueError(
        f'provenance {unknown} is none of {sorted(_KINDS)}; cut the row at its '
        'length before tracing it.'
      )


def render(
  rows: Sequence[Row], settings: Mapping[str, Any], model: str = 'pair'
) -> str:
  """The page.

  Args:
    rows: in the order of display.
    settings: what the rows have in common (rule, alpha, ...), for the header;
      None is left out.
    model: 'pair', or 'drafter' / 'verifier' if one decoded alone.
  """
  kinds = _KINDS if model == 'pair' else _ALONE
  used = {int(p) for row in rows for p in row.provenance}
  legend = [
    kind for number, kind in kinds.items() if model == 'pair' or number in used
  ]
  return (
    page.environment()
    .get_template('trace.html')
    .render(
      settings={k: _shown(v) for k, v in settings.items() if v is not None},
      legend=legend,
      rows=[_row(row, kinds) for row in rows],
    )
  )


def _row(row: Row, kinds: Mapping[int, _Kind]) -> dict[str, Any]:
  counts = [
    (kind, sum(int(p) == number for p in row.provenance))
    for number, kind in kinds.items()
  ]
  total = max(1, len(row.pieces))
  return {
    'source': row.source,
    'text': row.text,
    'tokens': _tokens(row, kinds),
    'shares': [
      {'kind': kind, 'count': count, 'width': f'{100 * count / total:.2f}%'}
      for kind, count in counts
      if count
    ],
    'facts': _facts(row),
  }


def _tokens(row: Row, kinds: Mapping[int, _Kind]) -> list[dict[str, Any]]:
  bytes_of = _characters(row.pieces)
  tokens = []
  for i, piece in enumerate(row.pieces):
    kind = kinds[int(row.provenance[i])]
    # Spaces stand between the boxes, so that words and lines break there.
    word = piece.lstrip(_SPACE)
    special = _special(piece, bytes_of.get(i))
    facts = [
      f'{i + 1}. {special or _quoted(piece)}',
      f'{kind.short}: {kind.meaning}',
      _probability('drafter', row.drafter_probs, i),
      _probability('verifier', row.verifier_probs, i),
    ]
    tokens.append(
      {
        'space': ' ' * (len(piece) - len(word)),
        'text': _box(piece, word),
        'kind': kind.name,
        'special': special is not None or not word,
        'tip': '\n'.join(fact for fact in facts if fact),
      }
    )
  return tokens


def _box(piece: str, word: str) -> str:
  """What is written in a token's box."""
  found = _BYTE.match(piece)
  if found:
    return found[1].upper()
  if piece == '</s>':
    return 'end'
  if piece == '<unk>':
    return '?'
  # A piece of spaces alone would be an empty box.
  return word.replace(_SPACE, ' ') or '\N{OPEN BOX}'


def _special(piece: str, character: str | None) -> str | None:
  """What to call a piece that is no text, else None."""
  found = _BYTE.match(piece)
  if found:
    of = f' of {character!r}' if character else ''
    return f'byte 0x{found[1].upper()}{of}'
  return {'</s>': 'end of sequence', '<unk>': 'unknown token'}.get(piece)


def _quoted(piece: str) -> str:
  return f'\N{LEFT DOUBLE QUOTATION MARK}{piece}\N{RIGHT DOUBLE QUOTATION MARK}'


def _characters(pieces: Sequence[str]) -> dict[int, str]:
  """The character that a byte piece is a part of, by position."""
  found: dict[int, str] = {}
  run: list[tuple[int, int]] = []
  for i, piece in enumerate([*pieces, '']):
    match = _BYTE.match(piece)
    if match:
      run.append((i, int(match[1], 16)))
      continue
    start = 0
    for character in bytes(value for _, value in run).decode(
      'utf-8', 'replace'
    ):
      # The replacement character stands for bytes that form no text; how many
      # is not known, and from there on nothing is claimed.
      if character == '\N{REPLACEMENT CHARACTER}':
        break
      end = start + len(character.encode())
      found |= {position: character for position, _ in run[start:end]}
      start = end
    run = []
  return found


def _probability(
  model: str, probs: Sequence[float] | None, i: int
) -> str | None:
  if probs is None:
    return None
  prob = float(probs[i])
  if math.isnan(prob):
    return f'{model}: did not score it'
  return f'{model}: {_percent(prob)}'


def _percent(prob: float) -> str:
  """Two or three significant digits at both ends of [0, 1]."""
  if 0 < prob < 1e-4:
    return '< 0.01%'
  return f'{prob:.2%}' if prob < 0.1 or prob > 0.999 else f'{prob:.1%}'


_FACTS = (
  ('verifier_calls', '{:.0f} verifier calls'),
  ('block_efficiency', '{:.2f} tokens a call'),
  ('drafter_steps', '{:.0f} drafter steps'),
  ('drafted', '{:.0f} drafted'),
  ('accepted', '{:.0f} accepted'),
  ('resampled', '{:.0f} resampled'),
  ('rejection_rate', '{:.0%} rejected'),
  ('deferral_rate', '{:.0%} deferred'),
)


def _facts(row: Row) -> list[str]:
  facts = [f'{len(row.pieces)} tokens']
  for name, form in _FACTS:
    value = row.counters.get(name)
    if value is not None and math.isfinite(value):
      facts.append(form.format(value))
  return facts


def _shown(value: Any) -> str:
  return f'{value:g}' if isinstance(value, float) else str(value)
