"""What becomes of aligned pairs: filters, families and splits."""

import itertools

import pytest

from experiments.corpora import align
from experiments.corpora import families
from experiments.corpora import filters
from experiments.corpora import split


def _pair(source, target, package='p', source_package=None, kind='sentence'):
  return align.Pair(source, target, package, source_package or package, kind)


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
