"""The builder of the corpora, on small index files in the true format."""

import itertools
import lzma
import pathlib
import random
import re

import pytest

from experiments.corpora import align
from experiments.corpora import build
from experiments.corpora import check
from experiments.corpora import families
from experiments.corpora import fetch
from experiments.corpora import filters
from experiments.corpora import parse
from experiments.corpora import split

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
  return _write_index(tmp_path / 'index', texts)


def _write_index(folder, texts):
  folder.mkdir()
  for name, text in texts.items():
    (folder / name).write_text(text, encoding='utf-8')
  return fetch.Index(*(folder / name for name in texts))


def _body(text):
  return tuple(text.strip('\n').split('\n'))


def _pair(source, target, package='p', source_package=None, kind='sentence'):
  return align.Pair(source, target, package, source_package or package, kind)


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


# In two parts, so that a search for hosts in the repository finds none.
_REGISTRY = '.'.join(['npmjs', 'com'])
_GOOD = ('This package has 2 tools.', 'Dieses Paket hat 2 Werkzeuge.')


# A pair that a filter drops, and one close to it that is kept.
@pytest.mark.parametrize(
  'wrong, bad, good',
  [
    ('too_long', ('word ' * 60, 'Wort ' * 60), ('word ' * 51, 'Wort ' * 51)),
    ('too_short', ('a tool', 'Werkzeug'), ('the tool', 'Werkzeug')),
    (
      'damaged',
      ('a caf\ufffd tool', 'Werkzeug'),
      ('a caf\u00e9 tool', 'Werkzeug'),
    ),
    (
      'identical',
      ('Syntax highlighter', 'Syntax highlighter'),
      ('Syntax highlighter', 'Syntax Highlighter'),
    ),
    (
      'addresses',
      ('Write to me@example.org', 'Schreiben an me@example.org'),
      ('Driver of X.Org servers', 'Treiber des X.Org-Servers'),
    ),
    (
      'addresses',
      ('See https://example.org/', 'Siehe https://example.org/'),
      ('See the example page', 'Siehe Beispielseite'),
    ),
    (
      'registries',
      (f'as found on {_REGISTRY}', f'wie auf {_REGISTRY}'),
      ('to use RubyGems here', 'um RubyGems zu nutzen'),
    ),
    (
      'other_digits',
      ('has 2 tools for you', 'hat 3 Werkzeuge'),
      ('wraps MP3 as one MP3', 'vereint MP3-Dateien'),
    ),
    (
      'untranslated',
      ('The library for the web', 'The Library for the web'),
      ('PAC responder daemon', 'PAC-Responder-Dienst'),
    ),
    (
      'uneven',
      ('short one', 'ein sehr viel l\u00e4ngerer Text als der andere'),
      ('short one', 'ein l\u00e4ngerer Text'),
    ),
    (
      'unbalanced',
      ('tool (for text', 'Werkzeug (Text)'),
      ('tool (for text)', 'Werkzeug (Text)'),
    ),
  ],
)
def test_filters_of_translations(wrong, bad, good):
  kept, dropped = filters.keep(
    [_pair(*bad), _pair(*good), _pair(*_GOOD)], filters.TRANSLATIONS
  )
  assert dropped == {wrong: 1}
  assert kept == [_pair(*good), _pair(*_GOOD)]


def test_filters_of_synopses():
  text = 'A program that does something of use to everybody.'
  wrong = {
    'lengths': ['A short one.', 'x' * 1001],
    'transitional': [
      'This is a transitional dummy package, to be removed safely.'
    ],
  }
  pairs = [_pair(bad, 'a program') for bads in wrong.values() for bad in bads]
  pairs.append(_pair(text, 'transitional name of a program'))
  good = [
    _pair(text, 'a program'),
    _pair(text + ' It finds packages for transition plans.', 'a program'),
  ]
  kept, dropped = filters.keep(pairs + good, filters.SYNOPSES)
  assert dropped == {'lengths': 2, 'transitional': 2}
  assert kept == good


@pytest.mark.parametrize(
  'text, without',
  [
    ('See http://example.org/a?b=c.', 'See URL.'),
    ('(at www.example.org) and', '(at URL) and'),
    ('more: <URL:https://example.org/>', 'more: URL'),
    ('more at <https://example.org/>.', 'more at URL.'),
    ('Node.js', 'Node.js'),
  ],
)
def test_urls_become_a_word(text, without):
  assert filters.without_urls(_pair(text, 't')).source == without


@pytest.mark.parametrize(
  'names',
  [
    ['boost1.74', 'boost1.81'],
    ['mdk', 'mdk3', 'mdk4'],
    ['hunspell', 'hunspell-de', 'hunspell-pt-br'],
    ['0ad', '0ad-data'],
    ['gpsim', 'gpsim-doc'],
  ],
)
def test_stem_is_one_for_a_family(names):
  (stem,) = {families.stem(name) for name in names}
  assert len(stem) > 1


def test_stem_keeps_what_tells_programs_apart():
  names = ['r-cran-maps', 'r-cran-mice', '7zip', '0ad', 'qt6-base', 'x264']
  assert len({families.stem(name) for name in names}) == len(names)


def _words(start, number=6):
  """A sentence that no other start gives."""
  return tuple(f'w{start}x{i}' for i in range(number))


def test_families_join_by_name_homepage_and_text():
  common = [_words(i) for i in range(3)]
  long = _words('long', families.LONG_WORDS)
  boilerplate = _words('boilerplate', 20)
  texts = {
    'boost1.74': set(),
    'boost1.81': set(),
    'cairo': {_words('cairo')},
    'pycairo': {_words('pycairo')},
    # Two of three rare sentences, and one of three.
    'half-a': {common[0], common[1], _words('a')},
    'half-b': {common[0], common[1], _words('b')},
    'less-c': {common[2], _words('c'), _words('c2')},
    'less-d': {common[2], _words('d'), _words('d2')},
    'long-e': {long, _words('e'), _words('e2')},
    'long-f': {long, _words('f'), _words('f2')},
  }
  others = {f'other{letter}' for letter in 'abcdefghijklmnopqrstuvwxyz'}
  texts |= {name: {boilerplate} for name in others}
  homepages = {
    'cairo': {'https://www.cairographics.org/'},
    'pycairo': {'http://cairographics.org', ''},
    'less-c': {''},
    'less-d': {''},
  }
  found = families.families(homepages, texts)
  groups = {}
  for name, family in found.items():
    groups.setdefault(family, set()).add(name)
  assert {frozenset(group) for group in groups.values()} == {
    frozenset(group)
    for group in [
      {'boost1.74', 'boost1.81'},
      {'cairo', 'pycairo'},
      {'half-a', 'half-b'},
      {'less-c'},
      {'less-d'},
      {'long-e', 'long-f'},
      *({name} for name in others),
    ]
  }
  assert all(family == min(group) for family, group in groups.items())


def test_one_target_is_the_most_frequent_in_any_order():
  pairs = [
    _pair('documentation', 'Dokumentation', 'a'),
    _pair('documentation', 'Dokumentation', 'b'),
    _pair('documentation', 'Doku', 'c'),
    _pair('a tie', 'eins', 'a'),
    _pair('a tie', 'zwei', 'b'),
  ]
  orders = [split.one_target(p) for p in itertools.permutations(pairs)]
  assert all(order == orders[0] for order in orders)
  targets = {pair.source: pair.target for pair in orders[0]}
  assert targets['documentation'] == 'Dokumentation'
  assert len(orders[0]) == 2


def test_hold_out_leaves_large_families_in_train():
  names = {f'big{i}': 'big' for i in range(13)} | {'many': 'many', 'a': 'a'}
  pairs = [_pair(name, name, name) for name in names]
  pairs += [_pair(f'{i}', f'{i}', 'many') for i in range(150)]
  found = split.hold_out([pairs], names, split.Limits({'test': 9}, 9))
  assert found == {'big': 'train', 'many': 'train', 'a': 'test'}


def test_held_out_families_do_not_depend_on_the_others():
  names = {f'p{i}': f'p{i}' for i in range(40)}
  limits = split.Limits({'test': 10, 'validation': 10}, 99)
  pairs = [_pair(name, name, name) for name in names]
  found = split.hold_out([pairs], names, limits)
  assert sorted(found.values()) == sorted(
    ['test'] * 10 + ['validation'] * 10 + ['train'] * 20
  )
  gone = next(name for name, part in found.items() if part == 'train')
  left = [pair for pair in pairs if pair.package != gone]
  assert split.hold_out([left], names, limits).items() <= found.items()


def test_apply_limits_held_out_pairs_and_drops_known_texts():
  pairs = [
    _pair('known source', 'one', 'train'),
    _pair('Known Source', 'two', 'test'),
    _pair('another', 'ONE', 'test'),
    _pair('in test', 'three', 'test'),
    _pair('in test, too', 'four', 'test'),
    _pair('over the limit of its family', 'five', 'test'),
    _pair('In Test', 'six', 'valid'),
    _pair('in validation', 'seven', 'valid'),
    _pair('of another family', 'eight', 'valid2'),
    _pair('over the limit of pairs', 'nine', 'valid2'),
  ]
  own = {pair.package: pair.package for pair in pairs}
  where = {'train': 'train', 'test': 'test'}
  where |= {'valid': 'validation', 'valid2': 'validation'}
  parts = split.apply(
    pairs, own, where, 2, split.Limits({'test': 9, 'validation': 9}, 2)
  )
  assert {name: [p.source for p in part] for name, part in parts.items()} == {
    'train': ['known source'],
    'test': ['in test', 'in test, too'],
    'validation': ['in validation', 'of another family'],
  }


def test_overlap_is_with_the_nearest_train_source():
  parts = {
    'train': [_pair('one two three four five', ''), _pair('six', '')],
    'validation': [],
    'test': [
      _pair('One two, three four five!', ''),
      _pair('zero one two three four', ''),
      _pair('six', ''),
    ],
  }
  assert split.overlaps(parts) == {'validation': [], 'test': [1.0, 0.5, 0.0]}


def _synthetic_index(folder, seed):
  """120 packages in an order of chance; their texts are the same each time."""
  packages, english, german = [], [], []
  for i in range(120):
    word = f'q{chr(97 + i % 26)}{chr(97 + i // 26)}'
    name = f'{word}tool'
    packages.append(
      f'Package: {name}\nDescription-md5: {i:x}\n'
      f'Homepage: https://{word}.example.org/\n'
    )
    english.append(
      f'Package: {name}\nDescription-md5: {i:x}\n'
      f'Description-en: tool {word} for writing letters\n'
      f' The tool {word} writes letters to {word}\n friends.\n .\n'
      f' Do use {word} often.\n .\n This package has the program itself.\n'
    )
    german.append(
      f'Package: {name}\nDescription-md5: {i:x}\n'
      f'Description-de: Werkzeug {word} zum Schreiben von Briefen\n'
      f' Das Werkzeug {word} schreibt Briefe an\n {word}-Freunde.\n .\n'
      f' Benutzen Sie {word} oft.\n .\n Dieses Paket hat das Programm.\n'
    )
  shuffle = random.Random(seed).shuffle
  for stanzas in (packages, english, german):
    shuffle(stanzas)
  names = ('Packages', 'Translation-en', 'Translation-de')
  texts = ('\n'.join(stanzas) for stanzas in (packages, english, german))
  return _write_index(folder, dict(zip(names, texts, strict=True)))


def _built(tmp_path, seed):
  """The folder of a build, and what the build said of it."""
  index = _synthetic_index(tmp_path / f'index{seed}', seed)
  limits = split.Limits({'test': 20, 'validation': 15}, 30)
  found, own, log = build.corpora(index, limits=limits)
  folder = tmp_path / f'corpora{seed}'
  for corpus, parts in found.items():
    build.write(folder, corpus, parts, own)
  return folder, log


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  return _built(tmp_path_factory.mktemp('built'), 0)


def test_a_rebuild_is_byte_identical(built, tmp_path):
  folder, log = built
  again, log_again = _built(tmp_path, 1)
  files = sorted(path.name for path in folder.iterdir())
  assert len(files) == 12  # Two corpora, three splits, pairs and meta.
  assert files == sorted(path.name for path in again.iterdir())
  assert (tmp_path / 'index1/Packages').read_text() != (
    folder.parent / 'index0/Packages'
  ).read_text()
  for name in files:
    assert (folder / name).read_bytes() == (again / name).read_bytes(), name
  assert log == log_again
  assert '120 English descriptions, 120 of them in de' in log


def test_build_writes_splits_without_leaks(built):
  corpora = check.read(built[0])
  assert set(corpora) == {'debian_en_de', 'debian_synopsis'}
  translations = corpora['debian_en_de']
  assert [len(translations[name]) for name in split.SPLITS] == [
    # Three of each package's four pairs are its own.
    85 * 3 + 1,
    30,
    30,
  ]
  assert {line.overlap for line in translations['train']} == {''}
  assert all(0 <= float(x.overlap) <= 1 for x in translations['test'])
  assert check.leaks(corpora) == []
  table = check.table(corpora)
  assert '256 / 30 / 30' in table
  assert re.search(r'families \| 85 / \d+ / \d+ \|', table)


@pytest.mark.parametrize(
  'field', ['source', 'target', 'source_package', 'family']
)
def test_check_would_catch_a_leak(built, field):
  corpora = check.read(built[0])
  text = getattr(corpora['debian_en_de']['train'][0], field)
  test = corpora['debian_en_de']['test']
  test[0] = test[0]._replace(**{field: text.upper()})
  (leak,) = check.leaks(corpora)
  assert field in leak and repr(text.casefold()) in leak
  assert 'is in train and in test' in leak


def test_check_refuses_files_that_do_not_belong_together(built, tmp_path):
  for path in built[0].iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  meta = tmp_path / 'debian_en_de.test.meta.tsv.xz'
  lines = lzma.decompress(meta.read_bytes()).splitlines(keepends=True)
  meta.write_bytes(lzma.compress(b''.join(lines[:-1])))
  with pytest.raises(ValueError, match='30 pairs, but 29 lines'):
    check.read(tmp_path)
  with pytest.raises(FileNotFoundError, match='No corpora'):
    check.read(pathlib.Path(tmp_path / 'nowhere'))


def test_comparison_of_a_build_with_itself(built):
  corpora = check.read(built[0])
  table = check.comparison(corpora, corpora)
  number = sum(len(part) for part in corpora['debian_en_de'].values())
  assert f'| pairs here / there | {number} / {number} |' in table
  assert f'| ... in the same split | {number} |' in table
  assert '| their test pairs that are train pairs here | 0 | 0 |' in table
