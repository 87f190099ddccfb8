"""A sweep on disk: append-only, resumable, safe to kill at any point.

::

  RUN_DIR/
    sweep.json             what was run, on what, and the runs in order
    operative_config.gin   of the first start
    operative_config-N.gin  of start N, where it is another
    examples.jsonl         sources and targets, one line an example
    call_times.json        single model calls, for the cost model
    runs/KEY/config.json   one point of the grid; KEY is a hash of it
    runs/KEY/examples.jsonl  one line an example, as soon as it is done
    runs/KEY/retimed-N.jsonl  the verifier, timed again beside new runs of
                           start N
    runs/KEY/warmup.json   compile and warm-up time
    runs/KEY/replicates.json  of the bootstrap, see `bootstrap`
    runs/KEY/summary.json  written last

The first start of a sweep is number 0, and a later one in the same directory
is one more; every line says in which it was timed.

A line is one `write` to a file opened for appending. The kernel keeps what a
killed process has written; what a power cut takes is at most the lines since
the last `fsync`, and a line torn by either is cut off on reopening.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import time
from typing import Any

from speccascade_jax.evaluation import base

_SYNC_EVERY_S = 5.0


class ResultsError(ValueError):
  """A run directory that cannot be used as asked; says why and what to do."""


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Replaces a file so that a reader sees the old or the new text, whole."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  with open(temporary, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
  # The rename itself is in the directory, which has a cache of its own.
  descriptor = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write_json(path: pathlib.Path, content: Any) -> None:
  """Replaces a file of JSON, see `write_atomically`."""
  write_atomically(path, json.dumps(content, indent=2) + '\n')


def read_json(path: pathlib.Path) -> Any:
  """What a file of JSON holds.

  Raises:
    ResultsError: if it is damaged.
  """
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ResultsError(
      f'{path} is not JSON ({error}). Restore it or use another directory.'
    ) from error


def _line(row: Mapping[str, Any]) -> str:
  """JSON on one line, also for readers that use `str.splitlines`."""
  # JSON escapes \n; these end a line too, and a model may emit them.
  ends = {ord(c): f'\\u{ord(c):04x}' for c in '\x85\u2028\u2029'}
  return json.dumps(row, ensure_ascii=False).translate(ends) + '\n'


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
  """The text of a `.jsonl` file."""
  return ''.join(map(_line, rows))


def check_same(
  where: pathlib.Path, stored: Mapping[str, Any], asked: Mapping[str, Any]
) -> None:
  """Refuses to mix two settings in one directory.

  Raises:
    ResultsError: naming every value that differs.
  """
  # What was asked takes the detour through JSON that the stored values took.
  asked = json.loads(json.dumps(dict(asked)))
  differing = [
    f'{name} is {stored.get(name)!r} there and {asked.get(name)!r} here'
    for name in sorted(set(stored) | set(asked))
    if stored.get(name) != asked.get(name)
  ]
  if differing:
    raise ResultsError(
      f'{where} holds other settings: {"; ".join(differing)}. Use another '
      'run directory, or the settings it was begun with.'
    )


def check_identity(
  path: str | os.PathLike[str], identity: Mapping[str, Any]
) -> None:
  """Refuses a run directory that holds another sweep; makes nothing.

  Args:
    path: of the directory; one that was never begun may hold anything.
    identity: see `RunDirectory`.

  Raises:
    ResultsError: naming what differs.
  """
  header = pathlib.Path(path) / 'sweep.json'
  if not header.exists():
    return
  stored = read_json(header)
  lacking = [name for name in identity if name not in stored]
  if lacking:
    raise ResultsError(
      f'{header} does not say {", ".join(lacking)}: it was begun by an older '
      'version, and may hold results of something else. Use another run '
      'directory.'
    )
  check_same(header, {k: stored.get(k) for k in identity}, identity)


def check_examples(
  path: str | os.PathLike[str], examples: Iterable[base.Example]
) -> None:
  """Refuses a run directory that holds other examples; makes nothing.

  Raises:
    ResultsError: naming the first line that differs.
  """
  file = pathlib.Path(path) / 'examples.jsonl'
  if not file.exists():
    return
  stored = file.read_text(encoding='utf-8')
  text = lines(map(dataclasses.asdict, examples))
  if stored != text:
    pairs = zip(stored.split('\n'), text.split('\n'), strict=False)
    number = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 'last')
    raise ResultsError(
      f'{file} holds other examples (line {number} differs): the task or '
      'its split has changed. Use another run directory.'
    )


def lock(path: pathlib.Path) -> int:
  """Takes a directory for this process, until the descriptor is closed.

  Raises:
    ResultsError: if another process has it.
  """
  descriptor = os.open(path / '.lock', os.O_RDWR | os.O_CREAT, 0o644)
  try:
    # Given back by the kernel when the process ends, however it ends.
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    owner = os.read(descriptor, 32).decode() or 'unknown'
    os.close(descriptor)
    raise ResultsError(
      f'{path} is in use by process {owner}. Wait for it or end it, '
      'or use another run directory.'
    ) from error
  os.ftruncate(descriptor, 0)
  os.pwrite(descriptor, str(os.getpid()).encode(), 0)
  return descriptor


class Log:
  """An append-only file of JSON lines, one an example.

  Opening drops a torn last line; the example is then run again.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    path.touch()
    self._rows = self._recover()
    self._synced = time.monotonic()
    self._unsynced = False

  @property
  def rows(self) -> Mapping[int, Mapping[str, Any]]:
    """What has been written, by example."""
    return self._rows

  def append(self, row: Mapping[str, Any]) -> None:
    """Writes one line; on return it survives the death of the process."""
    if row['example'] in self._rows:
      raise ResultsError(f'{self._path} has example {row["example"]} already.')
    line = _line(row).encode()
    # Opened anew each time: a grid may have more points than a process may
    # have open files. O_APPEND makes the line one indivisible write.
    with self._open(os.O_WRONLY | os.O_APPEND) as descriptor:
      written = os.write(descriptor, line)
      if written != len(line):
        raise ResultsError(
          f'Wrote {written} of {len(line)} bytes to {self._path}: is the disk '
          'full? The torn line is dropped at the next start.'
        )
      self._rows[row['example']] = dict(row)
      self._unsynced = True
      if time.monotonic() - self._synced > _SYNC_EVERY_S:
        self._sync(descriptor)

  def close(self) -> None:
    """Waits until all lines are on the disk, for power cuts."""
    if self._unsynced:
      with self._open(os.O_WRONLY) as descriptor:
        self._sync(descriptor)

  def _sync(self, descriptor: int) -> None:
    os.fsync(descriptor)
    self._synced = time.monotonic()
    self._unsynced = False

  @contextlib.contextmanager
  def _open(self, flags: int) -> Iterator[int]:
    descriptor = os.open(self._path, flags)
    try:
      yield descriptor
    finally:
      os.close(descriptor)

  def _recover(self) -> dict[int, dict[str, Any]]:
    content = self._path.read_bytes()
    lines = content.split(b'\n')
    # Behind the last newline there is nothing, or a line that was torn.
    intact = len(content) - len(lines.pop())
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
      try:
        row = json.loads(line)
        example = row['example']
      except (ValueError, KeyError, TypeError) as error:
        if number == len(lines):
          # A power cut can leave a block of zeros before the newline.
          intact -= len(line) + 1
          break
        raise ResultsError(
          f'{self._path}, line {number} is damaged ({error}). Delete the '
          'line to have its example run again.'
        ) from error
      if example in rows:
        raise ResultsError(
          f'{self._path}, line {number} repeats example {example}. Delete '
          'one of the two lines.'
        )
      rows[example] = row
    if intact < len(content):
      with self._open(os.O_WRONLY) as descriptor:
        os.ftruncate(descriptor, intact)
        os.fsync(descriptor)
    return rows


class Run:
  """One point of the grid: `runs/KEY/`."""

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any]):
    self.key = path.name
    self._path = path
    path.mkdir(parents=True, exist_ok=True)
    stored = path / 'config.json'
    if stored.exists():
      check_same(stored, read_json(stored), config)
    else:
      write_json(stored, config)
    self.log = Log(path / 'examples.jsonl')

  @property
  def warmup(self) -> dict[str, float] | None:
    """Compile [s] and warm-up [ms] times of the latest start, or None."""
    path = self._path / 'warmup.json'
    return read_json(path) if path.exists() else None

  @warmup.setter
  def warmup(self, times: Mapping[str, float]) -> None:
    write_json(self._path / 'warmup.json', times)

  def rows(self, examples: Sequence[base.Example]) -> list[Mapping[str, Any]]:
    """The lines of some examples, in their order and not in the log's."""
    return [self.log.rows[example.example] for example in examples]

  def retimed(self, start: int) -> Log:
    """Where a finished run is timed again, in this start."""
    return Log(self._path / f'retimed-{start}.jsonl')

  def timings(self) -> list[Mapping[str, Any]]:
    """Lines with example, start and latency_ms, of every start."""
    again = sorted(self._path.glob('retimed-*.jsonl'))
    logs = [self.log, *map(Log, again)]
    return [row for log in logs for row in log.rows.values()]

  def write_replicates(self, replicates: Mapping[str, Any]) -> None:
    """Without line breaks: there are thousands of numbers."""
    text = json.dumps(replicates, separators=(',', ':'))
    write_atomically(self._path / 'replicates.json', text + '\n')

  def write_summary(self, summary: Mapping[str, Any]) -> None:
    write_json(self._path / 'summary.json', summary)


class RunDirectory:
  """A sweep's directory, locked against a second process while it is open.

  Args:
    path: made if it does not exist.
    identity: settings that every start in this directory must share.
    circumstances: of this start (time, versions, commit, host). The first
      start's are kept in `sweep.json`, later ones under `resumed`.
    examples: of the sweep; must be those of the first start.
    configs: KEY -> config of the points, in the order of display. A later
      start may ask for other points; finished ones of both stay.

  Raises:
    ResultsError: if another process uses the directory, or what it holds
      does not belong to the same sweep.

  Attributes:
    runs: of the configs, by KEY.
    start: number of this start.
    command: that began the directory, 'sweep' or 'tune'.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    *,
    identity: Mapping[str, Any],
    circumstances: Mapping[str, Any],
    examples: Sequence[base.Example],
    configs: Mapping[str, Mapping[str, Any]],
    operative_config: str = '',
  ):
    self.path = pathlib.Path(path)
    self.path.mkdir(parents=True, exist_ok=True)
    self.runs: dict[str, Run] = {}
    self.start = 0
    self.command = str(circumstances.get('command', 'sweep'))
    self._lock = lock(self.path)
    try:
      self._write_header(identity, circumstances, configs)
      self._write_examples(examples)
      self._write_config(operative_config)
      for key, config in configs.items():
        self.runs[key] = Run(self.path / 'runs' / key, config)
    except BaseException:
      self.close()
      raise

  def __enter__(self) -> RunDirectory:
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def close(self) -> None:
    """Syncs every log and gives the lock back."""
    for run in self.runs.values():
      run.log.close()
    self.runs = {}
    os.close(self._lock)

  @property
  def call_times(self) -> dict[str, float] | None:
    """Milliseconds of single calls, see `base.Timed`; None if not timed."""
    path = self.path / 'call_times.json'
    return read_json(path)['ms'] if path.exists() else None

  @call_times.setter
  def call_times(self, times: Mapping[str, float]) -> None:
    content = {'start': self.start, 'ms': dict(times)}
    write_json(self.path / 'call_times.json', content)

  def _write_config(self, text) -> None:
    path = self.path / 'operative_config.gin'
    if path.exists() and path.read_text(encoding='utf-8') != text:
      # What the lines of earlier starts came from stays on record.
      path = self.path / f'operative_config-{self.start}.gin'
    write_atomically(path, text)

  def _write_header(self, identity, circumstances, configs) -> None:
    path = self.path / 'sweep.json'
    header = {**identity, **circumstances, 'runs': list(configs)}
    if path.exists():
      check_identity(self.path, identity)
      stored = read_json(path)
      known = stored['runs']
      self.start = 1 + len(stored.get('resumed', []))
      self.command = stored.get('command', 'sweep')
      header = {
        **stored,
        'resumed': [*stored.get('resumed', []), dict(circumstances)],
        # A start that asks for fewer runs does not hide the others.
        'runs': [*configs, *(k for k in known if k not in configs)],
      }
    write_json(path, header)

  def _write_examples(self, examples: Iterable[base.Example]) -> None:
    path = self.path / 'examples.jsonl'
    if path.exists():
      check_examples(self.path, examples)
    else:
      write_atomically(path, lines(map(dataclasses.asdict, examples)))
