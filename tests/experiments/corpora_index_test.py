"""From index files to aligned pairs: fetching, parsing, alignment."""

import pytest

from experiments.corpora import align
from experiments.corpora import fetch
from experiments.corpora import parse
from tests.experiments import index_files

_PACKAGES = """\
Package: gnutls-bin
Source: gnutls28 (3.7.9-2)
Version: 3.7.9-2+b1
Description: GNU TLS library - commandline utilities
Homepage: https://www.gnutls.org/
Description-md5: 4d4c
Tag: implemented-in::c, interface::commandline,
 network::client

Package: 0ad-data
Version: 0.0.26-1
Homepage: https://play0ad.com/
Description-md5: 77aa
"""

_ENGLISH = """\
Package: gnutls-bin
Description-md5: 4d4c
Description-en: GNU TLS library - commandline utilities
 GnuTLS is a portable  library which implements the Transport
 Layer Security protocols. It is used by e.g. web browsers.
 .
 GnuTLS features support for:
  - certificate path validation, as well as DANE and trust on first
    use.
  - the Online Certificate Status Protocol (OCSP).
 .
 This package contains a command-
 line interface, and it is short.

Package: 0ad-data
Description-md5: 77aa
Description-en: Real-time strategy game of ancient warfare (data files)
 It has pre- and post-processed data.
 .
 Second paragraph.
"""

_GERMAN = """\
Package: gnutls-bin
Description-md5: 4d4c
Description-de: GNU-TLS-Bibliothek - Befehlszeilen-Hilfsprogramme
 Die portierbare GnuTLS-Bibliothek implementiert die Transport-
 Layer-Security-Protokolle. Sie wird z.B. von Browsern verwendet.
 .
 GnuTLS unterst\u00fctzt
   * Validierung von Zertifikatspfaden sowie DANE und TOFU
   * das Online Certificate Status Protocol (OCSP).
 .
 Dieses Paket enth\u00e4lt eine Befehlszeile. Es ist kurz.

Package: 0ad-data
Description-md5: 77aa
Description-de: Echtzeit-Strategiespiel des Altertums (Datendateien)
 Es hat Daten.
"""


@pytest.fixture
def index(tmp_path):
  texts = {
    'Packages': _PACKAGES,
    'Translation-en': _ENGLISH,
    'Translation-de': _GERMAN,
  }
  return index_files.write(tmp_path / 'index', texts)


def _body(text):
  return tuple(text.strip('\n').split('\n'))


def test_fetch_takes_files_that_are_there(index, monkeypatch):
  monkeypatch.setenv('PATH', '')  # There is no apt-get to call.
  assert fetch.fetch(index.packages.parent) == index
  with pytest.raises(RuntimeError, match='no apt-get on this machine'):
    fetch.fetch(index.packages.parent, 'da')


def test_origins_have_source_package_and_homepage(index):
  assert parse.origins(index.packages) == {
    'gnutls-bin': parse.Origin('gnutls28', 'https://www.gnutls.org/'),
    '0ad-data': parse.Origin('0ad-data', 'https://play0ad.com/'),
  }


def test_a_file_that_is_no_index_is_refused(tmp_path):
  path = tmp_path / 'Packages'
  path.write_text('<html>Moved</html>\n')
  with pytest.raises(ValueError, match=r'line 1 is no field.*Moved'):
    list(parse.stanzas(path))


def test_the_first_of_packages_with_one_description_stands_for_it(tmp_path):
  path = tmp_path / 'Translation-en'
  stanza = 'Package: {}\nDescription-md5: aa\nDescription-en: a library\n'
  path.write_text(stanza.format('libz') + '\n' + stanza.format('liba'))
  (description,) = parse.descriptions(path, 'en').values()
  assert description.package == 'liba'


def test_blocks_undo_wrapping_and_separate_items():
  body = _body("""
A tool to
view  pictures
- and films.
.
Features:
- one that
goes on
* two
.
 Indented
text:
  1. first
     and last
  2. second
 all the same
Not an item.
""")
  assert parse.blocks(body) == [
    ('paragraph', 'A tool to view pictures - and films.'),
    ('paragraph', 'Features:'),
    ('item', 'one that goes on'),
    ('item', 'two'),
    ('paragraph', 'Indented text:'),
    ('item', 'first and last'),
    ('item', 'second all the same'),
    ('paragraph', 'Not an item.'),
  ]


@pytest.mark.parametrize(
  'lines, text',
  [
    (['a command-', 'line tool'], 'a command-line tool'),
    (['pre-', 'and post-processing'], 'pre- and post-processing'),
    (['Befehlszeilen-', 'Hilfe'], 'Befehlszeilen-Hilfe'),
    (['Ein-', 'und Ausgabe'], 'Ein- und Ausgabe'),
    (['a dash -', 'and more'], 'a dash - and more'),
    (['haptic/', 'visual feedback'], 'haptic/visual feedback'),
    (
      ['the folder /etc/service/', 'for all'],
      'the folder /etc/service/ for all',
    ),
  ],
)
def test_join_mends_broken_words(lines, text):
  assert parse.join(lines) == text


def test_normalise_composes_and_removes_the_invisible():
  assert (
    parse.normalise(' u\u0308ber\u00a0 \u200bein\u00ad\t') == '\u00fcber ein'
  )


@pytest.mark.parametrize(
  'text, number',
  [
    ('One sentence only', 1),
    ('First one. Second one! A third? Yes.', 4),
    ('It reads e.g. PNG files, i.e. Pictures.', 1),
    ('Es liest z.B. Bilder bzw. Filme. Es ist klein.', 2),
    ('See J. Smith et al. Nature for more.', 1),
    ('Version 2.0 is out. "Great", they say.', 2),
    ('It runs on X.Org and Node.js too.', 1),
    ('Images, sounds ... and more', 1),
    ('1. First', 1),
    ('Use it (or not.) Then rest.', 2),
  ],
)
def test_sentences(text, number):
  found = align.sentences(text)
  assert len(found) == number, found
  assert ' '.join(found) == text


def test_translations_align_by_checksum_and_structure(index):
  pairs = align.translations(
    parse.descriptions(index.english, 'en'),
    parse.descriptions(index.translation, 'de'),
    parse.origins(index.packages),
  )
  assert [(p.kind, p.source_package, p.source, p.target) for p in pairs] == [
    (kind, 'gnutls28', source, target)
    for kind, source, target in [
      (
        'synopsis',
        'GNU TLS library - commandline utilities',
        'GNU-TLS-Bibliothek - Befehlszeilen-Hilfsprogramme',
      ),
      (
        'sentence',
        'GnuTLS is a portable library which implements the Transport Layer '
        'Security protocols.',
        'Die portierbare GnuTLS-Bibliothek implementiert die '
        'Transport-Layer-Security-Protokolle.',
      ),
      (
        'sentence',
        'It is used by e.g. web browsers.',
        'Sie wird z.B. von Browsern verwendet.',
      ),
      ('sentence', 'GnuTLS features support for:', 'GnuTLS unterst\u00fctzt'),
      (
        'item',
        'certificate path validation, as well as DANE and trust on first use.',
        'Validierung von Zertifikatspfaden sowie DANE und TOFU',
      ),
      (
        'item',
        'the Online Certificate Status Protocol (OCSP).',
        'das Online Certificate Status Protocol (OCSP).',
      ),
      (
        'paragraph',
        'This package contains a command-line interface, and it is short.',
        'Dieses Paket enth\u00e4lt eine Befehlszeile. Es ist kurz.',
      ),
    ]
  ] + [
    # Two paragraphs against one: of this package only the synopsis aligns.
    (
      'synopsis',
      '0ad-data',
      'Real-time strategy game of ancient warfare (data files)',
      'Echtzeit-Strategiespiel des Altertums (Datendateien)',
    )
  ]


def test_synopses_are_of_flattened_descriptions(index):
  english = parse.descriptions(index.english, 'en')
  first, second = align.synopses(english, parse.origins(index.packages))
  assert first.target == 'GNU TLS library - commandline utilities'
  assert ' for: - certificate path validation' in first.source
  assert second.source == (
    'It has pre- and post-processed data. Second paragraph.'
  )
