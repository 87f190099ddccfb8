"""`speccascade generate`, on a tiny pair of random weights."""

import io
import re

import pytest

from speccascade_jax import __main__ as commands
from speccascade_jax import loading
from speccascade_jax import zoo
from tests.evaluation import tiny_pair

_TEXTS = ['It is a text editor.', 'Tools to build packages.', 'A game.']


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  return tiny_pair.save(tmp_path_factory.mktemp('pair'))


@pytest.fixture
def base(paths):
  return [f'--gin.generate.pair={paths}', '--max_length=6', '--gamma=2']


@pytest.fixture(scope='module')
def expected(paths):
  """What the public API writes for the three texts."""
  return loading.load_pair(**paths).generate(
    _TEXTS, max_length=6, gamma=2, temperature=1.0, key=3
  )


def _lines(capsys):
  captured = capsys.readouterr()
  return captured.out.split('\n')[:-1], captured.err


def test_texts_are_those_of_the_public_api(base, expected, capsys):
  flags = ['--temperature=1', '--seed=3']
  assert commands.main(['generate', *_TEXTS, *base, *flags]) == 0
  out, err = _lines(capsys)
  # One line a text, whatever the text is.
  assert out == [' '.join(text.splitlines()) for text in expected.texts]
  assert f'3 texts, {expected.lengths.sum()} tokens' in err
  assert 'a verifier call' in err


def test_a_stop_cuts_the_text_and_the_work(base, expected, capsys):
  flags = ['--temperature=1', '--seed=3']
  stop = expected.texts[0][3:6]
  assert (
    commands.main(['generate', *_TEXTS, *base, *flags, '--stop', stop]) == 0
  )
  out, err = _lines(capsys)
  assert out == [
    ' '.join(text.partition(stop)[0].splitlines()) for text in expected.texts
  ]
  tokens = int(re.search(r'(\d+) tokens', err)[1])
  assert tokens < expected.lengths.sum()


def test_batches_do_not_change_the_texts(base, expected, tmp_path, capsys):
  file = tmp_path / 'texts.txt'
  file.write_text('\n'.join(_TEXTS) + '\n\n')
  flags = ['--temperature=1', '--seed=3', '--batch_size=2', f'--input={file}']
  assert commands.main(['generate', *base, *flags]) == 0
  assert _lines(capsys)[0] == [
    ' '.join(text.splitlines()) for text in expected.texts
  ]


def test_the_trace_shows_who_wrote_what(base, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('sys.stdin', io.StringIO('A game.\n'))
  trace = tmp_path / 'trace.html'
  flags = ['--rule=opt', '--alpha=0.2', '--prefix=say: ', f'--trace={trace}']
  assert commands.main(['generate', '--input=-', *base, *flags]) == 0
  out, err = _lines(capsys)
  page = trace.read_text()
  assert str(trace) in err
  assert 'say: A game.' in page and 'rule <b>opt</b>' in page
  tokens = re.findall(r'<span class="token (\w+)[^"]*" tabindex', page)
  assert 1 <= len(tokens) <= 6
  assert set(tokens) <= {'drafter', 'resampled', 'verifier'}
  assert len(re.findall(r'(?m)^verifier: [\d&]', page)) == len(tokens)


def test_gin_and_flags_set_the_same_things_and_flags_win(
  base, tmp_path, capsys
):
  file = tmp_path / 'a.gin'
  trace = tmp_path / 'trace.html'
  file.write_text('generate.rule = @chow\ngenerate.alpha = 0.9\n')
  flags = [f'--gin_file={file}', '--alpha=0.4', f'--trace={trace}', 'A game.']
  assert commands.main(['generate', *base, *flags]) == 0
  page = trace.read_text()
  assert 'rule <b>chow</b>' in page and 'alpha <b>0.4</b>' in page


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['x', '--rule=otp'], "'@otp'; did you mean @opt?"),
    (['x', '--pair=debain'], 'debain'),
    ([], 'no text'),
    (['x', '--input=texts.txt'], 'not both'),
    (['--input=no_such_file.txt'], 'no_such_file.txt'),
    (['x', '--trace=no_such_folder/a.html'], 'no such folder'),
    (['x', '--batch_size=0'], 'batch_size is 0'),
    (['x', '--top_p=2'], 'top_p'),
    (['x', '--model=both'], "'both'"),
  ],
)
def test_a_mistake_ends_in_one_line(base, capsys, flags, said):
  if any(flag.startswith('--pair') for flag in flags):
    base = []
  assert commands.main(['generate', *base, *flags]) == 1
  out, err = _lines(capsys)
  assert not out and said in err and 'Traceback' not in err
  assert err.count('\n') == 1


def test_a_forgotten_prefix_of_the_shipped_pair_is_told(capsys):
  flags = ['--max_length=1', '--model=drafter', 'A game.', 'A tool.']
  assert commands.main(['generate', *flags]) == 0
  told = capsys.readouterr().err
  assert told.startswith('speccascade: warning: An input begins with no task')
  assert '--prefix' in told
  for prefix in zoo.PREFIXES['debian'].values():
    assert commands.main(['generate', *flags, f'--prefix={prefix}']) == 0
  assert 'begins with' not in capsys.readouterr().err
