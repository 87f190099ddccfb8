"""seqio tasks that say what ends an output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import seqio


class StoppedTask(seqio.Task):
  """A task with stop sequences, which end an output as well as its EOS does.

  `seqio.TaskRegistry.add(name, ..., task_cls=StoppedTask,
  stop_sequences=('\\n\\n',))` registers one.

  Attributes:
    stop_sequences: texts; decoding ends within its loop, with the token that
      completes one of them, and the output is cut in front of it.
  """

  def __init__(self, *args: Any, stop_sequences: Sequence[str], **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.stop_sequences = tuple(stop_sequences)
