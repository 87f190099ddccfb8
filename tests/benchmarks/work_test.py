"""The least that a call must do, against counts made by hand."""

from flax.core import meta
import pytest

from speccascade_jax.benchmarks import work
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config


def _t5(tied):
  return t5_config.T5Config(
    vocab_size=50,
    emb_dim=8,
    num_heads=2,
    head_dim=3,
    mlp_dim=5,
    num_encoder_layers=3,
    num_decoder_layers=2,
    logits_via_embedding=tied,
  )


def _work(config, batch, width):
  return work.of_extend(
    families.step_model(config),
    meta.unbox(families.abstract_params(config)),
    batch=batch,
    width=width,
    input_length=7,
    max_length=9,
  )


# A decoder layer: queries, keys, values and outputs of attention to the text,
# queries and outputs of that to the source (whose keys are in the cache), and
# three matrices of the gated block.
_T5_MATRICES = 2 * (6 * 8 * (2 * 3) + 3 * 8 * 5)
_T5_NORMS = (2 * 3 + 1) * 8


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize(('batch', 'width'), [(1, 1), (3, 4)])
def test_a_t5_reads_its_decoder_and_its_head(tied, batch, width):
  found = _work(_t5(tied), batch, width)
  head = 50 * 8
  rows = batch * width * 8  # Of the embedding, which is looked up.
  assert found.bytes == 4 * (_T5_MATRICES + _T5_NORMS + head + rows)
  assert found.operations == 2 * batch * width * (_T5_MATRICES + head)


def test_a_gemma_reads_all_that_it_has():
  config = gemma_config.GemmaConfig(
    vocab_size=50,
    emb_dim=8,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_dim=5,
    num_layers=2,
  )
  found = _work(config, 1, 1)
  count = families.num_parameters(config)
  assert found.bytes == 4 * (count + 8)  # The row that is looked up.
  norms = count - 2 * (8 * 4 * (2 + 1 + 1 + 2) + 3 * 8 * 5) - 50 * 8
  assert found.operations == 2 * (count - norms)


def test_the_slower_of_the_two_is_the_floor():
  needed = work.Work(bytes=8e6, operations=3e6)
  assert needed.floor_ms(1e9, 1e9) == pytest.approx(8)
  assert needed.floor_ms(1e9, 1e8) == pytest.approx(30)
