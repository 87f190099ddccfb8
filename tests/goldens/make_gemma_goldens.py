"""Makes the golden arrays that hold our Gemma to Hugging Face's in PyTorch.

Needs PyTorch and transformers, see make_t5_goldens.py for the environment::

  ~/goldens-venv/bin/python tests/goldens/make_gemma_goldens.py

Each `gemma_*.npz` beside this script holds a tiny random model's `config`
(JSON, Hugging Face's own), its `weights/<name>` (Hugging Face's names, layouts
and all; float16, and the model that made the logits had exactly these values),
`tokens` and float32 `logits`.
"""

import json
import pathlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent

# Sizes that differ from each other wherever the architecture lets them. Texts
# are several windows long: an off-by-one in the window is a small error.
COMMON = dict(
  vocab_size=23,
  hidden_size=12,
  intermediate_size=20,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=6,
  max_position_embeddings=64,
  attention_dropout=0.0,
  attn_implementation='eager',
)
GEMMA_3 = dict(
  num_hidden_layers=8,
  sliding_window=5,
  query_pre_attn_scalar=7,
  layer_types=['sliding_attention'] * 5
  + ['full_attention']
  + ['sliding_attention'] * 2,
)
LOCAL = {'rope_type': 'default', 'rope_theta': 100.0}
GLOBAL = {'rope_type': 'default', 'rope_theta': 5000.0}
STRETCHED = {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 5000.0}
CASES = {
  'gemma_1': (
    transformers.GemmaConfig,
    transformers.GemmaForCausalLM,
    dict(num_hidden_layers=2, hidden_act='gelu_pytorch_tanh'),
  ),
  'gemma_2': (
    transformers.Gemma2Config,
    transformers.Gemma2ForCausalLM,
    dict(
      num_hidden_layers=3,
      sliding_window=7,
      query_pre_attn_scalar=10,
      # Low enough to bend what these models compute.
      attn_logit_softcapping=1.5,
      final_logit_softcapping=2.0,
    ),
  ),
  'gemma_3': (
    transformers.Gemma3TextConfig,
    transformers.Gemma3ForCausalLM,
    GEMMA_3
    | dict(
      rope_parameters={'sliding_attention': LOCAL, 'full_attention': GLOBAL}
    ),
  ),
  'gemma_3_stretched': (
    transformers.Gemma3TextConfig,
    transformers.Gemma3ForCausalLM,
    GEMMA_3
    | dict(
      rope_parameters={'sliding_attention': LOCAL, 'full_attention': STRETCHED}
    ),
  ),
}
LENGTH, ROWS = 40, 2


def random_weights(model, rng):
  """Overwrites every parameter with values that float16 holds exactly."""
  weights = {}
  for name, parameter in model.named_parameters():
    shape = tuple(parameter.shape)
    if 'norm' in name:
      # Not zeros: a norm that is missing or misplaced must show.
      value = rng.uniform(-0.5, 0.5, shape)
    elif 'embed_tokens' in name:
      value = rng.normal(size=shape) * 0.6
    else:
      value = rng.normal(size=shape) * 1.5 / np.sqrt(shape[1])
    weights[name] = value.astype(np.float16)
    with torch.no_grad():
      parameter.copy_(torch.from_numpy(weights[name].astype(np.float32)))
  return weights


def make_case(name, seed):
  config_class, model_class, settings = CASES[name]
  rng = np.random.default_rng(seed)
  config = config_class(**COMMON, **settings)
  model = model_class(config).eval()
  weights = random_weights(model, rng)
  tokens = rng.integers(1, COMMON['vocab_size'], (ROWS, LENGTH))
  with torch.no_grad():
    logits = model(input_ids=torch.from_numpy(tokens)).logits.numpy()
  np.savez_compressed(
    HERE / f'{name}.npz',
    config=json.dumps(config.to_diff_dict(), sort_keys=True, default=str),
    tokens=tokens.astype(np.uint8),
    logits=logits,
    **{f'weights/{key}': value for key, value in weights.items()},
  )
  print(name, logits.shape, 'std of logits', logits.std(), sorted(weights)[:3])
  print(json.dumps(config.to_diff_dict(), default=str))


if __name__ == '__main__':
  for seed, name in enumerate(CASES):
    make_case(name, seed)
