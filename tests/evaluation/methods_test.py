import functools
import json
import subprocess
import sys

import pytest

from speccascade_jax import deferral
from speccascade_jax import verification
from speccascade_jax.evaluation import methods
from tests.evaluation import scripted

VERIFIER = methods.Method(model='verifier')
OPT = methods.Method(rule=deferral.opt, alphas=(0, 0.5, 1))

SCRIPT = """
from speccascade_jax import deferral
from speccascade_jax.evaluation import methods
method = methods.Method(rule=deferral.opt, alphas=(0.1,))
point, = methods.expand([method], gammas=(4,), temperatures=(1.0,))
print(point.key({'task': 'a', 'pair': 'b'}))
"""


def _point(**changes):
  settings = dict(
    label='SpecCascade [OPT]',
    model='pair',
    rule=deferral.opt,
    verification=verification.verify_tokens,
    alpha=0.1,
    gamma=4,
    temperature=1.0,
  )
  return methods.RunPoint(**{**settings, **changes})


def test_key_is_the_same_in_another_process():
  here = _point().key({'pair': 'b', 'task': 'a'})
  there = subprocess.run(
    [sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True
  )
  assert there.stdout.strip() == here == 'e655c737c398'


@pytest.mark.parametrize(
  'change',
  [
    {'alpha': 0.2},
    {'gamma': 5},
    {'temperature': 0.5},
    {'rule': deferral.chow},
    {'verification': verification.verify_block},
    {'top_k': 5},
    {'top_p': 0.9},
    {'min_p': 0.1},
    {'eta': 0.1},
    {'truncation': 'top_p'},
    {'method': 'bild', 'rule': None},
    {'options': (('fallback', 0.5),)},
    {'trial': 1},
    {'seed': 1},
  ],
)
def test_every_setting_is_in_the_key(change):
  assert _point(**change).key({}) != _point().key({})


def test_context_is_in_the_key_and_the_label_is_not():
  assert _point().key({'task': 'a'}) != _point().key({'task': 'b'})
  assert _point(label='x').key({}) == _point().key({})


def test_integers_and_floats_are_one_setting():
  assert _point(alpha=1, temperature=1).key({}) == _point(alpha=1.0).key({})


def test_config_is_json_and_names_the_functions():
  config = json.loads(json.dumps(_point().config()))
  assert config == {
    'method': 'speculative',
    'label': 'SpecCascade [OPT]',
    'model': 'pair',
    'rule': 'opt',
    'verification': 'token',
    'alpha': 0.1,
    'gamma': 4,
    'temperature': 1.0,
    'top_k': None,
    'top_p': None,
    'min_p': None,
    'trial': 0,
    'seed': 0,
  }


def test_rules_of_users_cannot_be_taken_for_the_package_s():
  assert methods.name_of(deferral.chow) == 'chow'
  assert methods.name_of(scripted.chow) == 'tests.evaluation.scripted.chow'
  partial = functools.partial(scripted.chow, beta=0.5)
  assert methods.name_of(partial).endswith('scripted.chow(beta=0.5)')


def test_grid_is_temperatures_by_trials_by_methods_by_gammas_by_alphas():
  points = methods.expand(
    [VERIFIER, OPT], gammas=(3, 5), temperatures=(0, 1), trials=2
  )
  # The verifier has no gamma, hence comes once a temperature and trial.
  assert len(points) == 2 * 2 * (1 + 2 * 3)
  first = [(p.label, p.gamma, p.alpha, p.temperature) for p in points[:7]]
  assert first == [
    ('Verifier', None, None, 0.0),
    ('SpecCascade [OPT]', 3, 0.0, 0.0),
    ('SpecCascade [OPT]', 3, 0.5, 0.0),
    ('SpecCascade [OPT]', 3, 1.0, 0.0),
    ('SpecCascade [OPT]', 5, 0.0, 0.0),
    ('SpecCascade [OPT]', 5, 0.5, 0.0),
    ('SpecCascade [OPT]', 5, 1.0, 0.0),
  ]


def test_alphas_share_a_program_and_gammas_do_not():
  points = methods.expand([OPT], gammas=(3, 5), temperatures=(0, 0.5, 1))
  # Temperatures above zero are traced: per gamma, greedy and sampled.
  assert len({point.program() for point in points}) == 4


@pytest.mark.parametrize(
  ('rule', 'verify', 'label'),
  [
    ('verifier_only', verification.verify_tokens, 'SpecDecode [lossless]'),
    ('lossy', verification.verify_tokens, 'SpecDecode [lossy]'),
    ('token_v3', verification.verify_tokens, 'SpecCascade [TokenV3]'),
    ('chow', verification.verify_block, 'SpecCascade [Chow], block'),
  ],
)
def test_labels_are_the_paper_s(rule, verify, label):
  method = methods.Method(
    rule=getattr(deferral, rule),
    alphas=() if rule == 'verifier_only' else (0.1,),
    verification=verify,
  )
  (point,) = methods.expand([method], gammas=(4,), temperatures=(0,))
  assert point.label == label


@pytest.mark.parametrize(
  ('settings', 'named'),
  [
    ({'model': 'judge'}, "'judge'"),
    ({'model': 'verifier', 'alphas': (0.1,)}, '0.1'),
    ({'model': 'drafter', 'rule': deferral.opt}, "'opt'"),
    ({'rule': None}, 'None'),
    ({'rule': deferral.opt}, "'opt'"),
    ({'rule': deferral.verifier_only, 'alphas': (0.1,)}, 'verifier_only'),
    ({'method': 'judge', 'rule': deferral.opt}, "'judge'"),
    ({'method': 'bild', 'rule': deferral.opt, 'alphas': (1,)}, "'opt'"),
    ({'method': 'bild'}, 'bild with alphas'),
    ({'method': 'token_cascade', 'alphas': (1,)}, 'token_cascade needs a'),
    (
      {'method': 'token_cascade', 'rule': deferral.diff, 'alphas': (1,)},
      'diff reads p_conf',
    ),
    (
      {'rule': deferral.opt, 'alphas': (1,), 'options': {'fallback': 1}},
      'takes no fallback; it is an option of bild',
    ),
    (
      {
        'method': 'sequence_cascade',
        'alphas': (1,),
        'verification': verification.verify_block,
      },
      'takes no verification',
    ),
    ({'model': 'verifier', 'method': 'bild'}, "'bild'"),
    (
      {'rule': deferral.verifier_only, 'truncation': 'k', 'alphas': (1,)},
      "truncation is 'k'",
    ),
    ({'rule': deferral.verifier_only, 'truncation': 'top_p'}, 'strengths'),
    (
      {'rule': deferral.opt, 'truncation': 'top_p', 'alphas': (1,)},
      'strengths',
    ),
    (
      {
        'rule': deferral.lossy,
        'alphas': (0.5,),
        'verification': verification.verify_block,
      },
      'verify_block emits the law pi',
    ),
    (
      {
        'method': 'sequence_cascade',
        'alphas': (1,),
        'options': {'quantile': 2},
      },
      'quantile must be in',
    ),
    (
      {'method': 'bild', 'alphas': (1,), 'options': {'fallback': None}},
      'fallback must be a number, got None',
    ),
    ({'rule': deferral.opt, 'alphas': (float('nan'),)}, 'nan'),
    # Its own alpha would be 0, unseen.
    ({'method': 'bild', 'truncation': 'top_p', 'alphas': (1,)}, 'strengths'),
  ],
)
def test_a_contradictory_method_is_refused_by_name(settings, named):
  with pytest.raises(ValueError, match=named):
    methods.Method(**settings)


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'temperature': -1.0}, '-1.0'),
    ({'gamma': 0}, 'gamma is 0'),
    ({'gamma': None}, 'gamma is None'),
    ({'top_k': 0}, 'top_k .* 0'),
    ({'top_p': 1.5}, 'top_p .* 1.5'),
    ({'min_p': 0.0}, 'min_p .* 0.0'),
    ({'eta': 0}, 'eta .* 0.0'),
    ({'truncation': 'top_p', 'alpha': 1.5}, 'top_p .* 1.5'),
    ({'truncation': 'top_k', 'alpha': 2.5}, 'top_k is 2.5'),
  ],
)
def test_a_setting_out_of_range_is_refused_by_name(change, named):
  with pytest.raises(ValueError, match=named):
    _point(**change)


def test_a_point_listed_twice_is_refused():
  with pytest.raises(ValueError, match='alpha 0.5.*twice'):
    methods.expand(
      [OPT, methods.Method(rule=deferral.opt, alphas=(0.5,))],
      gammas=(4,),
      temperatures=(0,),
    )


def test_a_truncated_verifier_keeps_the_company_of_the_plain_one():
  """What is truncated is the method, not the sweep."""
  curve = dict(truncation='top_k', alphas=(2, 5))
  grid = [
    VERIFIER,
    methods.Method(rule=deferral.verifier_only, **curve),
    methods.Method(model='verifier', **curve),
  ]
  plain, *truncated = methods.expand(
    grid, gammas=(4,), temperatures=(1.0,), top_k=9
  )
  assert plain.is_reference and plain.settings()['top_k'] == 9
  for point, k in zip(truncated, (2, 5, 2, 5), strict=True):
    assert point.company() == plain.company()
    assert not point.is_reference
    assert point.settings()['top_k'] == k
    assert point.settings().get('alpha', 0.0) == 0.0
  assert len({point.program() for point in truncated}) == 4
  labels = [point.label for point in truncated]
  assert labels == ['TopK [lossless]'] * 2 + ['TopK [verifier]'] * 2


def test_methods_without_blocks_have_no_gamma_and_pass_on_their_options():
  grid = [
    methods.Method(method='bild', alphas=(2,), options={'fallback': 0.5}),
    methods.Method(method='sequence_cascade', alphas=(0.5,)),
    methods.Method(method='token_cascade', rule=deferral.chow, alphas=(0.5,)),
    methods.Method(method='oracle_cascade', rule=deferral.diff, alphas=(0.5,)),
  ]
  *bild, sequence, token, oracle = methods.expand(
    grid, gammas=(3, 5), temperatures=(1.0,)
  )
  assert [point.gamma for point in bild] == [3, 5]
  assert bild[0].settings()['fallback'] == 0.5
  assert bild[0].config()['options'] == {'fallback': 0.5}
  assert [p.label for p in (bild[0], sequence, token, oracle)] == [
    'BiLD, fallback 0.5',
    'SeqCascade [Chow]',
    'TokenCascade [Chow]',
    'OracleCascade [Diff]',
  ]
  for point in (sequence, token, oracle):
    assert point.gamma is None and 'gamma' not in point.settings()
    assert point.config()['method'] == point.method


def test_an_empty_grid_is_refused():
  with pytest.raises(ValueError, match='empty'):
    methods.expand([], gammas=(4,), temperatures=(0,))


def test_a_sweep_s_temperatures_are_of_all_that_looks_at_confidences():
  grid = [
    methods.Method(model='verifier'),
    methods.Method(rule=deferral.verifier_only),
    methods.Method(rule=deferral.ensemble, alphas=(0.5,)),
    methods.Method(rule=deferral.chow, alphas=(0.1,)),
    methods.Method(
      rule=deferral.opt, alphas=(0.1,), confidence_temperatures=(1, 1)
    ),
    methods.Method(method='bild', alphas=(1.0,)),
    methods.Method(method='sequence_cascade', alphas=(0.5,)),
  ]
  points = methods.expand(
    grid,
    gammas=(4,),
    temperatures=(0.0,),
    confidence_temperatures=(1.5, 0.9),
  )
  found = [point.confidence_temperatures for point in points]
  given = (1.5, 0.9)
  assert found == [None, None, None, given, (1.0, 1.0), given, given]
  # The runs that cannot be moved keep their keys.
  plain = methods.expand(grid, gammas=(4,), temperatures=(0.0,))
  same = [p.key({}) == q.key({}) for p, q in zip(points, plain, strict=True)]
  assert same == [t in (None, (1.0, 1.0)) for t in found]
  with pytest.raises(ValueError, match='must be above 0'):
    methods.expand(
      grid,
      gammas=(4,),
      temperatures=(0.0,),
      confidence_temperatures=(0.0, 1.0),
    )


@pytest.mark.parametrize(
  'rule', [deferral.verifier_only, deferral.lossy, deferral.ensemble]
)
def test_temperatures_that_nothing_reads_are_refused(rule):
  alphas = () if rule is deferral.verifier_only else (0.5,)
  with pytest.raises(ValueError, match=f'{rule.__name__} looks at no conf'):
    methods.Method(rule=rule, alphas=alphas, confidence_temperatures=(1.0, 1.0))


@pytest.mark.parametrize('alphas', [0.2, 'abc', ('x',)])
def test_alphas_that_are_no_list_of_numbers_are_named(alphas):
  with pytest.raises(ValueError, match=r'alphas is .*such as \(0\.2,\)'):
    methods.Method(rule=deferral.opt, alphas=alphas)


def test_the_name_of_a_rule_is_no_rule():
  with pytest.raises(ValueError, match="rule is 'opt'; it must be a function"):
    methods.Method(rule='opt', alphas=(0.2,))
