"""Scores of answers, written letter by letter from the published descriptions.

SQuAD 2.0: https://rajpurkar.github.io/SQuAD-explorer/ (evaluate-v2.0.py);
ROUGE-Lsum: Lin 2004, section 3.2, with counts clipped as rouge-score has them.
"""

import re

_PUNCTUATION = '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'


def normalized(text):
  """Lower case, no punctuation, no articles, single spaces."""
  kept = ''
  for letter in text.lower():
    if letter not in _PUNCTUATION:
      kept += letter
  # An article is a run of word characters, which need not be a word between
  # spaces: 'the-end' has lost its hyphen by now, 'the…end' has not its dots.
  runs = re.split(r'(\w+)', kept)
  runs = [' ' if run in ('a', 'an', 'the') else run for run in runs]
  return ' '.join(''.join(runs).split())


def exact(gold, given):
  return int(normalized(gold) == normalized(given))


def f1(gold, given):
  """F1 of the words; where either text has none, whether both have none."""
  gold, given = normalized(gold).split(), normalized(given).split()
  if not gold or not given:
    return int(gold == given)
  left, same = list(gold), 0
  for word in given:
    if word in left:
      left.remove(word)
      same += 1
  if not same:
    return 0
  precision, recall = same / len(given), same / len(gold)
  return 2 * precision * recall / (precision + recall)


def squad_v2(targets, predictions):
  """The figures of the script, under its names, for {index: answers}."""
  per = []
  for answers, given in zip(targets, predictions):
    golds = [a for a in answers if normalized(a)] or ['']
    per.append(
      (
        bool(answers),
        max(exact(gold, given) for gold in golds),
        max(f1(gold, given) for gold in golds),
      )
    )
  found = {}
  for prefix, chosen in (
    ('', per),
    ('HasAns_', [p for p in per if p[0]]),
    ('NoAns_', [p for p in per if not p[0]]),
  ):
    if chosen:
      found[f'{prefix}exact'] = 100 * sum(p[1] for p in chosen) / len(chosen)
      found[f'{prefix}f1'] = 100 * sum(p[2] for p in chosen) / len(chosen)
  return found


def _lcs_positions(wanted, given):
  """Positions in `wanted` of one longest common subsequence."""
  if not wanted or not given:
    return ()
  table = {}
  for i in range(len(wanted) + 1):
    for j in range(len(given) + 1):
      if not i or not j:
        table[i, j] = 0
      elif wanted[i - 1] == given[j - 1]:
        table[i, j] = table[i - 1, j - 1] + 1
      else:
        table[i, j] = max(table[i - 1, j], table[i, j - 1])
  i, j, found = len(wanted), len(given), []
  while i and j:
    if wanted[i - 1] == given[j - 1]:
      found.append(i - 1)
      i, j = i - 1, j - 1
    elif table[i, j - 1] > table[i - 1, j]:
      j -= 1
    else:
      i -= 1
  return tuple(found)


def rouge_lsum(target, prediction):
  """F1 of union LCS; sentences are lists of words, no word stems."""
  sizes = [sum(map(len, text)) for text in (target, prediction)]
  if not all(sizes):
    return 0.0
  left = [sum(target, []), sum(prediction, [])]
  hits = 0
  for sentence in target:
    union = set()
    for other in prediction:
      union.update(_lcs_positions(sentence, other))
    for position in sorted(union):
      word = sentence[position]
      if all(word in words for words in left):
        hits += 1
        for words in left:
          words.remove(word)
  if not hits:
    return 0.0
  recall, precision = hits / sizes[0], hits / sizes[1]
  return 2 * precision * recall / (precision + recall)
