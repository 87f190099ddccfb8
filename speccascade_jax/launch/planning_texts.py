"""A plan in words."""

from __future__ import annotations

from collections.abc import Sequence
import textwrap

from speccascade_jax import footprint
from speccascade_jax.evaluation import expectation
from speccascade_jax.launch import planning

_LEFT = 12  # Columns of the headings.


def size(num_bytes: float) -> str:
  """'1.74 GB', decimal as memory is sold."""
  for unit, of in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if num_bytes >= of:
      return f'{num_bytes / of:.2f} {unit}'
  return f'{num_bytes:.0f} bytes'


def needed(plan: planning.Plan) -> str:
  """How the header of a config states its memory: '1.74 GB'."""
  return size(footprint.total(p for p in plan.memory if not p.estimated))


def duration(seconds: float) -> str:
  """'2.3 h'."""
  for unit, of in (('days', 86_400), ('h', 3600), ('min', 60)):
    if seconds >= 2 * of:
      return f'{seconds / of:.1f} {unit}'
  return f'{seconds:.1f} s'


def text(
  plan: planning.Plan, *, devices: str, device_memory: int | None
) -> str:
  """All of it, for a terminal.

  Args:
    plan: what is to be told.
    devices: that were found.
    device_memory: of one of them [bytes]; None if it does not say. To JAX the
      cores of a machine are one device, with the whole memory.
  """
  lines = [_line('devices', devices)]
  lines += _memory(plan.memory, plan.largest, device_memory)
  if plan.num_runs is not None:
    lines.append(_line('runs', _runs(plan)))
  if plan.most is not None:
    lines.append(_line('calls', f'at most {_calls(plan.most)}'))
  if plan.expected is not None:
    lines.append(_line('', f'expected {_calls(plan.expected)}'))
    told = f'{plan.num_expected} of {plan.num_runs} runs'
    lines.append(_line('', f'(after measured ones: {told}, others at most)'))
  if plan.most_s is not None:
    found = f'at most {duration(plan.most_s)}'
    if plan.expected_s is not None:
      found += f', expected {duration(plan.expected_s)}'
    lines.append(_line('duration', f'{found}: calls of the models alone,'))
    lines.append(_line('', 'without loading, compiling and scoring'))
  lines += [
    line
    for note in plan.notes
    for line in textwrap.wrap(note, 79, subsequent_indent='  ')
  ]
  return '\n'.join(lines) + '\n'


def _memory(
  parts: Sequence[footprint.Part], largest: str, device_memory: int | None
) -> list[str]:
  sure = footprint.total(p for p in parts if not p.estimated)
  whole = footprint.total(parts)
  head = size(sure)
  if whole > sure:
    head += f', with the estimate {size(whole)}'
  head += ' on one device'
  if device_memory is not None:
    share = whole / device_memory
    has = f'{size(device_memory)} that it has'
    head += f', {share:.0%} of the {has}' if share <= 1 else f': OVER the {has}'
  lines = [_line('memory', head)]
  width = max(len(_name(part)) for part in parts)
  for part in parts:
    line = f'{_name(part):{width}}  {size(part.num_bytes):>10}  {part.detail}'
    lines += textwrap.wrap(
      line,
      100,
      initial_indent='  ',
      subsequent_indent=' ' * (width + 16),
      break_long_words=False,
    )
  lines.append(f'  of {largest}; a call needs room of its own besides')
  return lines


def _name(part: footprint.Part) -> str:
  return f'{part.name} (estimate)' if part.estimated else part.name


def _runs(plan: planning.Plan) -> str:
  if plan.num_texts is None:
    return f'{plan.num_runs}, each of as many texts as the data has'
  return f'{plan.num_runs}, {plan.num_texts:,} texts over all of them'


def _calls(calls: expectation.Calls) -> str:
  return (
    f'{calls.verifier_calls:,.0f} of the verifier, '
    f'{calls.drafter_steps:,.0f} steps of the drafter'
  )


def _line(heading: str, found: str) -> str:
  return f'{heading:{_LEFT}}{found}'
