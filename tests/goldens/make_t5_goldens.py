"""Makes the golden arrays that hold our T5 to Hugging Face's in PyTorch.

Needs PyTorch and transformers, which the package and its tests do not; run it
in an environment of its own and commit what it writes::

  python -m venv ~/goldens-venv
  ~/goldens-venv/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
  ~/goldens-venv/bin/python tests/goldens/make_t5_goldens.py

Each `t5_*.npz` beside this script holds a tiny random model's `config` (JSON,
Hugging Face's names), its `weights/<name>` (Hugging Face's names, layouts and
all; float16, and the model that made the logits had exactly these values),
`encoder_inputs`, `decoder_inputs` and float32 `logits`.
`t5_position_buckets.npz` holds the position buckets of distances -300 .. 300.
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from transformers.models.t5 import modeling_t5

HERE = pathlib.Path(__file__).parent

# Sizes that differ from each other wherever the architecture lets them, so
# that no mistaken axis goes unnoticed: H * D != E, encoder != decoder depth.
COMMON = dict(
  vocab_size=24,
  d_model=12,
  num_heads=2,
  d_kv=5,
  d_ff=20,
  num_layers=2,
  num_decoder_layers=3,
  dropout_rate=0.0,
)
V1_0 = dict(feed_forward_proj='relu', tie_word_embeddings=True)
V1_1 = dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False)
# Long enough for the last bucket: distances 113 and more (32 buckets up to
# 128), and 19 and more (16 buckets up to 20).
FAR = dict(
  relative_attention_num_buckets=32, relative_attention_max_distance=128
)
NEAR = dict(
  relative_attention_num_buckets=16, relative_attention_max_distance=20
)
FAR_SOURCES, FAR_TARGET = (150, 131), 140
NEAR_SOURCES, NEAR_TARGET = (45, 1, 30), 48

CASES = {
  't5_v1_0_far': (V1_0 | FAR, FAR_SOURCES, FAR_TARGET),
  't5_v1_1_far': (V1_1 | FAR, FAR_SOURCES, FAR_TARGET),
  't5_v1_0_near': (V1_0 | NEAR, NEAR_SOURCES, NEAR_TARGET),
  't5_v1_1_near': (V1_1 | NEAR, NEAR_SOURCES, NEAR_TARGET),
}


def random_weights(model, rng):
  """Overwrites every parameter with values that float16 holds exactly."""
  weights = {}
  for name, parameter in model.named_parameters():
    shape = tuple(parameter.shape)
    if 'layer_norm' in name:
      # Not ones: a norm that is missing or misplaced must show.
      value = rng.uniform(0.5, 1.5, shape)
    elif 'relative_attention_bias' in name or name == 'shared.weight':
      value = rng.normal(size=shape)
    else:
      value = rng.normal(size=shape) * 1.2 / np.sqrt(shape[1])
    weights[name] = value.astype(np.float16)
    with torch.no_grad():
      parameter.copy_(torch.from_numpy(weights[name].astype(np.float32)))
  return weights


def make_case(name, seed):
  settings, sources, target = CASES[name]
  settings = COMMON | settings
  rng = np.random.default_rng(seed)
  config = transformers.T5Config(**settings, decoder_start_token_id=0)
  model = transformers.T5ForConditionalGeneration(config).eval()
  if not settings['tie_word_embeddings']:
    # transformers 5 ties the head of a fresh model whatever the config says.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
  assert config.scale_decoder_outputs == settings['tie_word_embeddings']
  weights = random_weights(model, rng)
  assert ('lm_head.weight' in weights) != settings['tie_word_embeddings']

  vocab = settings['vocab_size']
  encoder_inputs = np.zeros((len(sources), max(sources)), np.int32)
  for row, length in enumerate(sources):
    encoder_inputs[row, :length] = rng.integers(1, vocab, length)
  decoder_inputs = rng.integers(1, vocab, (len(sources), target))
  decoder_inputs[:, 0] = 0
  with torch.no_grad():
    logits = model(
      input_ids=torch.from_numpy(encoder_inputs).long(),
      attention_mask=torch.from_numpy(encoder_inputs != 0).long(),
      decoder_input_ids=torch.from_numpy(decoder_inputs).long(),
    ).logits.numpy()
  np.savez_compressed(
    HERE / f'{name}.npz',
    config=json.dumps(settings, sort_keys=True),
    encoder_inputs=encoder_inputs.astype(np.uint8),
    decoder_inputs=decoder_inputs.astype(np.uint8),
    logits=logits,
    **{f'weights/{key}': value for key, value in weights.items()},
  )
  print(name, logits.shape, 'std of logits', logits.std())


def make_buckets():
  distances = torch.arange(-300, 301)
  buckets = {}
  for num_buckets, max_distance in ((32, 128), (16, 20)):
    for bidirectional in (False, True):
      key = (
        f'{num_buckets}_{max_distance}_{"both" if bidirectional else "past"}'
      )
      buckets[key] = (
        modeling_t5.T5Attention._relative_position_bucket(
          distances, bidirectional, num_buckets, max_distance
        )
        .numpy()
        .astype(np.uint8)
      )
  np.savez_compressed(
    HERE / 't5_position_buckets.npz',
    distances=distances.numpy().astype(np.int16),
    **buckets,
  )


if __name__ == '__main__':
  for seed, name in enumerate(CASES):
    make_case(name, seed)
  make_buckets()
