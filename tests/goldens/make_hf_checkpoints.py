"""Makes small checkpoints in the form in which transformers writes them.

Needs PyTorch and transformers, see make_t5_goldens.py for the environment::

  ~/goldens-venv/bin/python tests/goldens/make_hf_checkpoints.py

Each folder `hf_*` beside this script is what `save_pretrained` wrote for a tiny
random model over the vocabulary of the shipped pair, in float16, and
`expected.npz`: `inputs`, for an encoder-decoder model also `targets`, and the
float32 `logits` of every 64th token.
"""

import pathlib
import shutil

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
VOCAB = 4096

T5 = dict(
  vocab_size=VOCAB,
  d_model=8,
  num_heads=2,
  d_kv=4,
  d_ff=12,
  num_layers=1,
  num_decoder_layers=2,
  dropout_rate=0.0,
  decoder_start_token_id=0,
)
GEMMA = dict(
  vocab_size=VOCAB,
  hidden_size=8,
  intermediate_size=12,
  num_hidden_layers=2,
  num_attention_heads=2,
  num_key_value_heads=1,
  head_dim=6,
  sliding_window=4,
  query_pre_attn_scalar=5,
)
CASES = {
  'hf_t5_v1_0': transformers.T5Config(
    **T5, feed_forward_proj='relu', tie_word_embeddings=True
  ),
  'hf_t5_v1_1': transformers.T5Config(
    **T5, feed_forward_proj='gated-gelu', tie_word_embeddings=False
  ),
  'hf_gemma_1': transformers.GemmaConfig(
    **{k: v for k, v in GEMMA.items() if k not in ('sliding_window',)}
    | {'query_pre_attn_scalar': None}
  ),
  'hf_gemma_2': transformers.Gemma2Config(**GEMMA),
  'hf_gemma_3': transformers.Gemma3TextConfig(**GEMMA),
}
# So that one of them comes in shards, under an index.
SHARD_SIZE = {'hf_t5_v1_1': '70KB'}


def make_case(name, seed):
  torch.manual_seed(seed)
  config = CASES[name]
  if isinstance(config, transformers.T5Config):
    model = transformers.T5ForConditionalGeneration(config)
    if not config.scale_decoder_outputs:
      # transformers 5 ties the head of a fresh model whatever the config says.
      model.lm_head.weight = torch.nn.Parameter(
        torch.randn_like(model.lm_head.weight)
      )
  else:
    model = transformers.AutoModelForCausalLM.from_config(
      config, attn_implementation='eager'
    )
  with torch.no_grad():
    for parameter in model.parameters():
      spread = 1.0 / np.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.3
      value = torch.randn_like(parameter) * spread + parameter * 0.1
      # Not `model.half()`, which would also round the rotary frequencies.
      parameter.copy_(value.half().float())
  model = model.eval()
  rng = np.random.default_rng(seed)
  tokens = rng.integers(3, VOCAB, (2, 12))
  inputs = dict(input_ids=torch.from_numpy(tokens))
  arrays = dict(inputs=tokens)
  if isinstance(config, transformers.T5Config):
    arrays['targets'] = np.pad(rng.integers(3, VOCAB, (2, 6)), ((0, 0), (1, 0)))
    inputs['decoder_input_ids'] = torch.from_numpy(arrays['targets'])
  with torch.no_grad():
    logits = model(**inputs).logits.numpy()
  folder = HERE / name
  shutil.rmtree(folder, ignore_errors=True)
  for parameter in model.parameters():
    parameter.data = parameter.data.half()
  model.config.dtype = torch.float16
  if name == 'hf_t5_v1_1':
    # As in the published ones; else the head would not be written.
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}
  model.save_pretrained(folder, max_shard_size=SHARD_SIZE.get(name, '5GB'))
  (folder / 'generation_config.json').unlink(missing_ok=True)
  np.savez_compressed(
    folder / 'expected.npz', logits=logits[..., ::64], **arrays
  )
  print(name, logits.std(), sorted(p.name for p in folder.iterdir()))


if __name__ == '__main__':
  for seed, name in enumerate(CASES):
    make_case(name, seed)
