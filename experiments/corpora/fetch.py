"""Fetches Debian's index files with `apt-get`, beside the system's own.

The mirror is the one that the machine is set up with: `apt-get` itself is asked
for it. Everything it downloads lies in a folder of the caller, so that the
package lists of the system, which other programs use, stay as they are; neither
root nor an installed package is needed. `apt-get` checks the signature of the
release and the checksum of each file.
"""

from __future__ import annotations

import pathlib
import subprocess
from typing import NamedTuple

RELEASE = 'bookworm'
COMPONENT = 'main'
# Descriptions hardly differ between architectures, so any one of them serves;
# naming it keeps the corpora the same on a machine of another kind.
ARCHITECTURE = 'amd64'
ENGLISH = 'en'

_RECIPE = f'{RELEASE}/{COMPONENT} {ARCHITECTURE}'


class Index(NamedTuple):
  """Paths of the unpacked index files."""

  packages: pathlib.Path
  english: pathlib.Path
  translation: pathlib.Path


def fetch(folder: pathlib.Path, language: str = 'de') -> Index:
  """Downloads the index files that are not yet in `folder`.

  Args:
    folder: where they come to lie, together with apt's own state.
    language: of the translation to align with English, as Debian writes it
      ('de', 'da', 'it', 'pt_BR').

  Raises:
    RuntimeError: if there is no apt, no mirror, or no such file on it.
  """
  folder = folder.resolve()
  index = Index(
    folder / 'Packages',
    folder / f'Translation-{ENGLISH}',
    folder / f'Translation-{language}',
  )
  if not all(path.is_file() for path in index):
    _download(folder, language)
    for path in index:
      _copy(folder, path)
  return index


def _options(folder: pathlib.Path) -> list[str]:
  """Everything that apt would otherwise write on or read of the system."""
  return [
    f'-oDir::State={folder / "state"}',
    f'-oDir::State::status={folder / "status"}',
    f'-oDir::Cache={folder / "cache"}',
    f'-oDir::Etc::sourcelist={folder / "sources.list"}',
    '-oDir::Etc::sourceparts=-',
    f'-oAPT::Architecture={ARCHITECTURE}',
    f'-oAPT::Architectures={ARCHITECTURE}',
    '-oAcquire::GzipIndexes=false',
    # Called by root, apt would download as a user who may not write here.
    '-oAPT::Sandbox::User=',
    '-qq',
  ]


def _download(folder: pathlib.Path, language: str) -> None:
  mirror, key = _mirror()
  for name in ('state/lists/partial', 'cache/archives/partial'):
    (folder / name).mkdir(parents=True, exist_ok=True)
  (folder / 'status').touch()
  choices = [
    f'arch={ARCHITECTURE}',
    f'lang={ENGLISH},{language}',
    'target=Packages,Translations',
  ]
  if key:
    choices.append(f'signed-by={key}')
  source = f'deb [{" ".join(choices)}] {mirror} {RELEASE} {COMPONENT}\n'
  (folder / 'sources.list').write_text(source, encoding='utf-8')
  _run(['apt-get', *_options(folder), 'update'])


def _mirror() -> tuple[str, str]:
  """The address of the configured archive and the key that signs it."""
  output = _run(
    [
      'apt-get',
      'indextargets',
      '--format',
      '$(REPO_URI) $(SIGNED_BY)',
      f'Release: {RELEASE}',
      f'Component: {COMPONENT}',
      'Created-By: Packages',
    ]
  )
  lines = sorted(set(output.splitlines()))
  if not lines:
    raise RuntimeError(
      f'No source of packages on this machine has {_RECIPE}. Run this on '
      f'Debian of that release, or add it to the sources of apt.'
    )
  # Unset, $(SIGNED_BY) is printed as it is written.
  address, _, key = lines[0].partition(' ')
  return address, '' if '$(' in key else key


def _copy(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Puts an index file where `fetch` promises it, unpacked."""
  ending = f'_dists_{RELEASE}_{COMPONENT}_'
  kind = 'i18n' if path.name.startswith('Translation') else 'binary'
  found = [
    file
    for file in sorted((folder / 'state' / 'lists').iterdir())
    if ending + kind in file.name and file.name.endswith(f'_{path.name}')
  ]
  if len(found) != 1:
    raise RuntimeError(
      f'The mirror gave {len(found)} files {path.name} of {_RECIPE}, not one. '
      f'A mirror may leave translations out; ask another.'
    )
  path.write_bytes(found[0].read_bytes())


def _run(command: list[str]) -> str:
  """The output of a command, or its complaint as an error."""
  try:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
  except FileNotFoundError as error:
    raise RuntimeError(
      f'There is no {command[0]} on this machine. Fetch the index files on a '
      'Debian machine and give their folder with --index.'
    ) from error
  except subprocess.CalledProcessError as error:
    raise RuntimeError(
      f'{command[0]} failed with {error.returncode}:\n{error.stderr.strip()}'
    ) from error
  return done.stdout
