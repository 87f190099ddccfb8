"""A calibration as one HTML page that needs nothing else."""

from __future__ import annotations

import base64

from speccascade_jax.reports import calibrations
from speccascade_jax.reports import page
from speccascade_jax.reports import reliability


def render(calibration: calibrations.Calibration) -> str:
  """The page: temperatures, diagrams, table and circumstances."""
  light = reliability.draw(calibration)
  dark = reliability.draw(calibration, dark=True)
  found = ', '.join(f'{m.temperature:g}' for m in calibration.models)
  return (
    page.environment()
    .get_template('calibration.html')
    .render(
      header=calibration.header,
      heading=calibration.heading,
      models=[
        {
          'name': model.name,
          'temperature': f'{model.temperature:g}',
          'verdict': model.verdict,
        }
        for model in calibration.models
      ],
      notes=calibration.caveats,
      figure={
        'light': _embedded(light),
        'dark': _embedded(dark),
        'width': light.width,
        'height': light.height,
        'marks': [
          {
            'left': f'{100 * mark.x:.3f}%',
            'top': f'{100 * mark.y:.3f}%',
            'tip': mark.tip,
          }
          for mark in light.marks
        ],
      },
      # A model a column, which fits any width.
      rows=calibrations.cells(calibration),
      meanings=[column.meaning for column in calibrations.COLUMNS],
      macro=f'CONFIDENCE_TEMPERATURES = ({found})',
      file=calibration.path / 'confidences.gin',
      circumstances=_circumstances(calibration),
      operative_config=calibration.operative_config,
    )
  )


def _embedded(diagram: reliability.Diagram) -> str:
  return 'data:image/png;base64,' + base64.b64encode(diagram.png).decode()


def _circumstances(calibration: calibrations.Calibration) -> dict[str, str]:
  get = calibration.header.get
  versions = get('versions') or {}
  known = {
    'Task': get('task'),
    'Pair': get('pair'),
    'Fitted on': f'{get("num_examples")} examples of {get("split")}',
    'Told of': f'{get("num_held_out")} examples of {get("held_out_split")}',
    'Seed': get('seed'),
    'Device': get('device'),
    'Host': get('host'),
    'Begun': get('created'),
    'Resumed': len(get('resumed') or []) or None,
    'Commit': get('commit'),
    'Versions': ', '.join(f'{name} {v}' for name, v in versions.items()),
    'Command': 'speccascade calibrate --gin_file=operative_config.gin',
  }
  return {k: str(v) for k, v in known.items() if v not in (None, '')}
