"""seqio sources over data sets that were prepared beforehand.

Nothing is downloaded here: what is not there ends in a sentence with the
command that prepares it. Data sets lie where TFDS prepares them: in the
folder that `seqio.set_tfds_data_dir_override` names (the commands' `data_dir`,
T5X's `--tfds_data_dir`), else in TFDS_DATA_DIR, else in ~/tensorflow_datasets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import json
import os
import pathlib
from typing import Any

from etils import epath
import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

# A row of a data set: arrays by name, where a feature is nested in dicts.
Row = Mapping[str, Any]


def data_dir() -> str:
  """Where data sets are looked for."""
  # seqio has no public reader of what its public function sets.
  override = seqio.utils._TFDS_DATA_DIR_OVERRIDE
  default = pathlib.Path.home() / 'tensorflow_datasets'
  # Read here: TFDS itself reads it once, when it is imported.
  return str(override or os.environ.get('TFDS_DATA_DIR') or default)


class TfdsSource(seqio.DataSource):
  """A data set as `tfds build` has left it, in its newest version.

  Unlike `seqio.TfdsDataSource` it needs neither the code that builds the set
  nor the network, and says what to do where there is nothing.
  """

  def __init__(
    self, name: str, splits: Sequence[str], *, first: str | None = None
  ):
    """A source that looks for its files when it is read.

    Args:
      name: of TFDS, with the configuration if there are several.
      splits: those that a task has, which may be fewer than the set has.
      first: what has to be done by hand before `tfds build`.
    """
    self._name = name
    self._first = first
    super().__init__(splits=splits)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """No: hosts share the files."""
    return False

  def list_shards(self, split: str) -> list[str]:
    """Names of the split's files."""
    info = self._builder().info.splits[split]
    return [file.filename for file in info.file_instructions]

  def num_input_examples(self, split: str) -> int:
    """Examples in the split."""
    return self._builder().info.splits[split].num_examples

  def get_dataset(
    self,
    split: str = 'train',
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    **unused: Any,
  ) -> tf.data.Dataset:
    """As in `seqio.DataSource`.

    Raises:
      FileNotFoundError: if the set has not been prepared.
    """
    config = tfds.ReadConfig(shuffle_seed=seed, skip_prefetch=True)
    if shard_info:
      config.input_context = tf.distribute.InputContext(
        num_input_pipelines=shard_info.num_shards,
        input_pipeline_id=shard_info.index,
      )
    return self._builder().as_dataset(
      split=split, shuffle_files=shuffle, read_config=config
    )

  def row(self, split: str, index: int) -> Row:
    """One example, without reading those before its file."""
    dataset = self._builder().as_dataset(split=f'{split}[{index}:{index + 1}]')
    return next(dataset.as_numpy_iterator())

  def _builder(self) -> tfds.core.DatasetBuilder:
    folder = data_dir()
    home = epath.Path(folder) / self._name
    versions = [
      version
      for version in tfds.core.utils.version.list_all_versions(home)
      if (home / str(version) / 'dataset_info.json').exists()
    ]
    if not versions:
      first = f'{self._first}, then ' if self._first else ''
      raise FileNotFoundError(
        f'The data set {self._name} is not in {folder}: prepare it ({first}'
        f'`tfds build {self._name} --data_dir={folder}`, which needs '
        'apache-beam, or `python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{self._name}', data_dir='{folder}')"
        '.download_and_prepare()"`), or say where it is with data_dir or '
        'TFDS_DATA_DIR.'
      )
    return _builder_of(str(home / str(versions[-1])))


@functools.cache
def _builder_of(folder: str) -> tfds.core.DatasetBuilder:
  return tfds.builder_from_directory(folder)


class JsonLinesSource(seqio.FunctionDataSource):
  """Splits of one file of JSON lines, as its authors publish it."""

  def __init__(
    self,
    name: str,
    url: str,
    splits: Mapping[str, range],
    *,
    number: str,
    features: Mapping[str, tf.TensorSpec],
  ):
    """A source that reads its file when it is needed.

    Args:
      name: of the set; the file is DATA_DIR/name/ and the URL's last part.
      url: where the authors have it.
      splits: the numbers of their examples.
      number: the key of an example's number.
      features: type and shape of each key that is read, texts or lists of
        them.
    """
    self._name = name
    self._url = url
    self._numbers = dict(splits)
    self._number = number
    self._features = dict(features)
    super().__init__(self._dataset, splits=tuple(splits))

  def num_input_examples(self, split: str) -> int:
    """Examples in the split."""
    return len(self._rows(split))

  def get_dataset(self, split: str = 'train', *args, **kwargs):
    """As in `seqio.DataSource`.

    Raises:
      FileNotFoundError: if the file is not there.
      ValueError: if a line is not what it should be.
    """
    self._rows(split)  # In the pipeline it would arrive wrapped.
    return super().get_dataset(split, *args, **kwargs)

  def row(self, split: str, index: int) -> Row:
    """One example, as it comes out of a pipeline."""
    row = self._rows(split)[index]
    return {
      name: np.array([text.encode() for text in row[name]], dtype=object)
      if spec.shape.rank
      else row[name].encode()
      for name, spec in self._features.items()
    }

  def _rows(self, split: str) -> list[Row]:
    folder = data_dir()
    path = epath.Path(folder) / self._name / self._url.rpartition('/')[2]
    if not path.exists():
      raise FileNotFoundError(
        f'The data set {self._name} is not in {folder}: fetch it (`curl -L '
        f'--create-dirs -o {path} {self._url}`), or say where {self._name}/'
        f'{path.name} is with data_dir or TFDS_DATA_DIR.'
      )
    numbers = self._numbers[split]
    lists = tuple((k, bool(v.shape.rank)) for k, v in self._features.items())
    rows = _json_lines(str(path), self._number, lists)
    return [row for row in rows if row[self._number] in numbers]

  def _dataset(self, split: str, shuffle_files: bool, seed: int | None = None):
    del shuffle_files, seed  # One file: the task shuffles examples.

    def rows():
      for row in self._rows(split):
        yield {name: row[name] for name in self._features}

    return tf.data.Dataset.from_generator(rows, output_signature=self._features)


@functools.cache
def _json_lines(
  path: str, number: str, features: tuple[tuple[str, bool], ...]
) -> list[Row]:
  """The lines that are not blank; `features` says which are lists of texts.

  Raises:
    ValueError: if one of them is not what it should be.
  """
  try:
    text = epath.Path(path).read_text(encoding='utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is no text in UTF-8: {error}') from error
  rows: list[Row] = []
  for i, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    where = f'{path}, line {i},'
    try:
      row = json.loads(line)
    except ValueError as error:
      raise ValueError(f'{where} is not JSON: {error}') from error
    if not isinstance(row, dict):
      raise ValueError(f'{where} is {line[:40]!r}, not an object in braces.')
    missing = {number, *dict(features)} - row.keys()
    if missing:
      raise ValueError(
        f'{where} has no {", ".join(map(repr, sorted(missing)))}.'
      )
    if type(row[number]) is not int:
      raise ValueError(
        f'{where} has {number!r}: {row[number]!r}, which is no whole number.'
      )
    for name, is_list in features:
      texts = row[name] if is_list else [row[name]]
      if not isinstance(texts, list) or not all(
        isinstance(one, str) for one in texts
      ):
        wanted = 'list of texts' if is_list else 'text'
        raise ValueError(f'{where} has {name!r}: {row[name]!r}, no {wanted}.')
    rows.append(row)
  return rows
