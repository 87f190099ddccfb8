"""Gemma and T5 as llama.cpp keeps them in GGUF files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from speccascade_jax import base
from speccascade_jax import marks
from speccascade_jax import vocabulary as vocabularies
from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import gguf_file
from speccascade_jax.checkpoints import translate
from speccascade_jax.models import families
from speccascade_jax.models.gemma import config as gemma_config
from speccascade_jax.models.t5 import config as t5_config

# Generated code, which type checkers cannot see into.
sentencepiece_proto: Any = sentencepiece_model_pb2

# What the files do not say: it is the same in all models of a generation, or
# follows from the depth.
_GEMMA: dict[str, dict[str, Any]] = {
  'gemma': {},
  'gemma2': {
    'attention_pattern': (gemma_config.LOCAL, gemma_config.GLOBAL),
    'use_post_norms': True,
  },
  'gemma3': {
    'attention_pattern': (gemma_config.LOCAL,) * 5 + (gemma_config.GLOBAL,),
    'use_post_norms': True,
    'use_qk_norm': True,
  },
}
_EMBEDDING, _HEAD = 'token_embd.weight', 'output.weight'
# What may be there and says nothing: a tied embedding once more, and what the
# first uploads of T5 have, which no version of it reads.
_IGNORED = {_HEAD, 'dec.blk.0.cross_attn_rel_b.weight'}
# Depth of the 27B models, which divide by the width of a head of E / H.
_WIDE = {'gemma2': 46, 'gemma3': 62}


def load(
  path: str | os.PathLike[str],
  dtype: str | None = None,
  place: translate.Place = translate.put,
) -> tuple[families.Config, base.Params, vocabularies.Vocabulary]:
  """Reads a file.

  Args:
    path: a GGUF file of a Gemma (1 to 3, text) or a T5; any of its parts where
      it is split.
    dtype: of the parameters in memory, float32 without.
    place: see `translate.load`.

  Raises:
    CheckpointError: if it is another model, broken, or quantised in a way that
      is not read.
  """
  file = gguf_file.File(pathlib.Path(path))
  config = config_of(file)
  table = table_of(config)
  ignored = _IGNORED - set(table)
  translate.check(file, table, config, ignored)
  _check_head(file, config)
  # First, for it takes the least time to be refused.
  words = vocabulary_of(file)
  params = translate.load(file, table, config, dtype, ignored, place)
  return config, params, words


def read_config(path: str | os.PathLike[str]) -> families.Config:
  """The model's shape, without its weights; errors as in `load`."""
  return config_of(gguf_file.File(pathlib.Path(path)))


def read_vocabulary(
  path: str | os.PathLike[str],
) -> vocabularies.Vocabulary:
  """The vocabulary, without the weights; errors as in `load`."""
  return vocabulary_of(gguf_file.File(pathlib.Path(path)))


def _check_head(file: gguf_file.File, config: families.Config) -> None:
  """Refuses a Gemma whose head is not its embedding: no config has one."""
  if not isinstance(config, gemma_config.GemmaConfig):
    return
  if _HEAD in file.shapes and not file.same(_HEAD, _EMBEDDING):
    raise errors.CheckpointError(
      f'{file.path} has an {_HEAD} that is no copy of its {_EMBEDDING}, byte '
      'for byte: a Gemma whose head is not its embedding is not read. If it is '
      'a copy that was quantised otherwise, convert or quantise the model '
      'again without it.'
    )


class _Metadata:
  """Lookups that name the key that is missing."""

  def __init__(self, file: gguf_file.File, kind: str):
    self._file, self._kind = file, kind

  def get(self, key: str, default: Any = None) -> Any:
    return self._file.metadata.get(f'{self._kind}.{key}', default)

  def __getitem__(self, key: str) -> Any:
    name = f'{self._kind}.{key}'
    if name not in self._file.metadata:
      raise errors.CheckpointError(f'{self._file.path} does not say {name}.')
    return self._file.metadata[name]

  def rounded(self, key: str) -> Any:
    """A number that is stored as a float32: 1e-6 as 9.99999997e-07."""
    value = self[key]
    return float(f'{value:.6g}') if isinstance(value, float) else value


def config_of(file: gguf_file.File) -> families.Config:
  """The model's shape; CheckpointError if it is none that is read."""
  kind = file.metadata.get('general.architecture')
  metadata = _Metadata(file, str(kind))
  if kind not in (*_GEMMA, 't5'):
    raise errors.CheckpointError(
      f'{file.path} holds a {kind!r:.80}; '
      f'{", ".join([*_GEMMA, "t5"])} are read.'
    )
  if len(file.shapes.get(_EMBEDDING, ())) != 2:
    raise errors.CheckpointError(f'{file.path} has no {_EMBEDDING}.')
  try:
    if kind == 't5':
      return _t5_config(file, metadata)
    return _gemma_config(file, str(kind), metadata)
  except errors.CheckpointError:
    raise
  except (ValueError, TypeError) as error:
    raise errors.CheckpointError(f'{file.path}: {error}') from error


def _gemma_config(file, kind, metadata) -> gemma_config.GemmaConfig:
  settings = dict(_GEMMA[kind])
  depth, heads = metadata['block_count'], metadata['attention.head_count']
  width, head_dim = (
    metadata['embedding_length'],
    metadata['attention.key_length'],
  )
  rope_base = metadata.get('rope.freq_base', 10_000.0)
  local_base = rope_base
  if kind == 'gemma2':
    # Early files do not say these; llama.cpp's defaults are those of all
    # published sizes (src/llama-model.cpp, LLM_ARCH_GEMMA2; llama-hparams.h).
    settings['sliding_window'] = metadata.get('attention.sliding_window', 4096)
    for ours, theirs, default in (
      ('attn_logit_softcap', 'attn_logit_softcapping', 50.0),
      ('final_logit_softcap', 'final_logit_softcapping', 30.0),
    ):
      settings[ours] = metadata.get(theirs, default)
  if kind == 'gemma3':
    settings['sliding_window'] = metadata['attention.sliding_window']
    rope_base = metadata.get('rope.freq_base', 1_000_000.0)
    local_base = metadata.get('rope.freq_base_swa', 10_000.0)
    # Zero stands for none.
    cap = metadata.get('final_logit_softcapping') or None
    settings['final_logit_softcap'] = cap
  config = gemma_config.GemmaConfig(
    vocab_size=file.shapes[_EMBEDDING][0],
    emb_dim=width,
    num_layers=depth,
    num_heads=heads,
    num_kv_heads=metadata['attention.head_count_kv'],
    head_dim=head_dim,
    mlp_dim=metadata['feed_forward_length'],
    rope_base=rope_base,
    local_rope_base=local_base,
    rope_scale_factor=_rope_scale_factor(kind, metadata),
    rms_norm_epsilon=metadata.rounded('attention.layer_norm_rms_epsilon'),
    **settings,
  )
  if kind == 'gemma':
    return config
  scalar = width // heads if depth == _WIDE[kind] else head_dim
  return dataclasses.replace(config, query_pre_attn_scalar=float(scalar))


def _rope_scale_factor(kind, metadata) -> float:
  """What the positions of global layers are divided by."""
  # As llama.cpp has it: linear where no type is said, and zero for none.
  scaling = metadata.get('rope.scaling.type', 'linear')
  factor = metadata.get('rope.scaling.factor', 1.0) or 1.0
  if scaling not in ('none', 'linear'):
    raise ValueError(
      f'{kind}.rope.scaling.type {scaling!r:.80} is not known; none and linear '
      'are.'
    )
  if scaling == 'none':
    return 1.0
  if kind == 'gemma2' and factor != 1.0:
    # llama.cpp keeps it from the local layers of a Gemma 3 alone.
    raise ValueError(
      f'{kind}.rope.scaling.factor is {factor!r:.80}, which is for local '
      'layers, too; only positions of global layers are scaled here.'
    )
  return factor


def _t5_config(file, metadata) -> t5_config.T5Config:
  gated = 'enc.blk.0.ffn_gate.weight' in file.shapes
  # The first uploads of T5 have their embedding twice.
  tied = _HEAD not in file.shapes or file.same(_HEAD, _EMBEDDING)
  depth = metadata['block_count']
  return t5_config.T5Config(
    vocab_size=file.shapes[_EMBEDDING][0],
    emb_dim=metadata['embedding_length'],
    num_heads=metadata['attention.head_count'],
    head_dim=metadata['attention.key_length'],
    mlp_dim=metadata['feed_forward_length'],
    num_encoder_layers=depth,
    num_decoder_layers=metadata.get('decoder_block_count', depth),
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    logits_via_embedding=tied,
    relative_attention_num_buckets=metadata['attention.relative_buckets_count'],
    layer_norm_epsilon=metadata.rounded('attention.layer_norm_epsilon'),
  )


def table_of(config: families.Config) -> translate.Table:
  """llama.cpp's names of a model's tensors, and what they become."""
  if isinstance(config, t5_config.T5Config):
    return _t5_table(config)
  return _gemma_table(config)


def _norm(target: str) -> tuple[translate.Part, ...]:
  """A Gemma's norm, stored as one plus the weight."""
  return translate.converted(f'{target}/scale', lambda x: x - 1)


def _gemma_table(config: gemma_config.GemmaConfig) -> translate.Table:
  matrices = {
    'attn_q': 'attention/query',
    'attn_k': 'attention/key',
    'attn_v': 'attention/value',
    'attn_output': 'attention/out',
    'ffn_gate': 'mlp/wi_0',
    'ffn_up': 'mlp/wi_1',
    'ffn_down': 'mlp/wo',
  }
  norms = {'attn_norm': 'pre_attention_norm', 'ffn_norm': 'pre_mlp_norm'}
  if config.use_post_norms:
    norms |= {
      'post_attention_norm': 'post_attention_norm',
      'post_ffw_norm': 'post_mlp_norm',
    }
  if config.use_qk_norm:
    norms |= {
      'attn_q_norm': 'attention/query_norm',
      'attn_k_norm': 'attention/key_norm',
    }
  table = {
    _EMBEDDING: translate.as_is('token_embedder/embedding'),
    'output_norm.weight': _norm('decoder/final_norm'),
  }
  for i in range(config.num_layers):
    there, here = f'blk.{i}', f'decoder/layers_{i}'
    for theirs, ours in matrices.items():
      table[f'{there}.{theirs}.weight'] = translate.transposed(
        f'{here}/{ours}/kernel'
      )
    for theirs, ours in norms.items():
      table[f'{there}.{theirs}.weight'] = _norm(f'{here}/{ours}')
  return table


def _t5_table(config: t5_config.T5Config) -> translate.Table:
  table = {_EMBEDDING: translate.as_is('token_embedder/embedding')}
  if not config.logits_via_embedding:
    table[_HEAD] = translate.transposed('decoder/logits_dense/kernel')
  matrices = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'out'}
  if len(config.mlp_activations) > 1:
    mlp = {'ffn_gate': 'wi_0', 'ffn_up': 'wi_1', 'ffn_down': 'wo'}
  else:
    mlp = {'ffn_up': 'wi', 'ffn_down': 'wo'}
  stacks = (
    ('enc', 'encoder', config.num_encoder_layers, {'attn': 'attention'}),
    (
      'dec',
      'decoder',
      config.num_decoder_layers,
      {'attn': 'self_attention', 'cross_attn': 'encoder_decoder_attention'},
    ),
  )
  norms = {
    'attention': 'pre_attention_layer_norm',
    'self_attention': 'pre_self_attention_layer_norm',
    'encoder_decoder_attention': 'pre_cross_attention_layer_norm',
  }
  for short, stack, depth, attentions in stacks:
    table[f'{short}.output_norm.weight'] = translate.as_is(
      f'{stack}/{stack}_norm/scale'
    )
    table[f'{short}.blk.0.attn_rel_b.weight'] = translate.transposed(
      f'{stack}/relpos_bias/rel_embedding'
    )
    for i in range(depth):
      there, here = f'{short}.blk.{i}', f'{stack}/layers_{i}'
      for theirs, ours in attentions.items():
        table[f'{there}.{theirs}_norm.weight'] = translate.as_is(
          f'{here}/{norms[ours]}/scale'
        )
        for letter, matrix in matrices.items():
          table[f'{there}.{theirs}_{letter}.weight'] = translate.transposed(
            f'{here}/{ours}/{matrix}/kernel'
          )
      table[f'{there}.ffn_norm.weight'] = translate.as_is(
        f'{here}/pre_mlp_layer_norm/scale'
      )
      for theirs, ours in mlp.items():
        table[f'{there}.{theirs}.weight'] = translate.transposed(
          f'{here}/mlp/{ours}/kernel'
        )
  return table


def vocabulary_of(file: gguf_file.File) -> vocabularies.Vocabulary:
  """The SentencePiece model that the metadata were made from.

  Texts end where llama.cpp ends them: at the end of a sequence, of a turn, or
  of a message, and at `<end_of_turn>` whatever the metadata say.

  Raises:
    CheckpointError: if the metadata hold no such vocabulary.
  """
  metadata = _Metadata(file, 'tokenizer.ggml')
  kinds = {
    'llama': sentencepiece_proto.TrainerSpec.BPE,
    't5': sentencepiece_proto.TrainerSpec.UNIGRAM,
  }
  kind = metadata['model']
  if not isinstance(kind, str) or kind not in kinds:
    raise errors.CheckpointError(
      f'{file.path} has a {kind!r:.80} tokenizer; {" and ".join(kinds)} are '
      'read.'
    )
  try:
    tokens = _Tokens(metadata)
    model = _sentencepiece(metadata, tokens, kinds[kind])
    codec = vocabularies.SentencePieces(
      model.SerializeToString(), str(file.path), tokens.special
    )
    return vocabularies.Vocabulary(codec, marks.by_name(codec, tokens.ends))
  except errors.CheckpointError:
    raise
  except (ValueError, TypeError, AttributeError) as error:
    # Other kinds of values than there should be, and what the library refuses.
    raise errors.CheckpointError(
      f'{file.path} has a broken vocabulary: {error}'
    ) from error


_TYPES = sentencepiece_proto.ModelProto.SentencePiece
# Tokens of Gemma's that are no text. Early converters, and some exporters since
# (https://github.com/unslothai/unsloth/issues/5070), have them as if they were.
_NO_TEXT = {
  *('<pad>', '<eos>', '<bos>', '<mask>'),
  *('<start_of_turn>', '<end_of_turn>'),
  *('<start_of_image>', '<end_of_image>', '<image_soft_token>'),
}


class _Tokens:
  """The pieces of a file, without what only fills them up.

  Attributes:
    pieces, scores, types: of each token; Gemma's that are no text are control
      tokens whatever the file says.
    ids: what 'unk', 'bos', 'eos' and 'pad' are; -1 where there is none.
    ends: all tokens that the metadata say end a text.
    special: tokens that are no text.
  """

  def __init__(self, metadata: _Metadata):
    pieces, scores, types = (
      metadata[key] for key in ('tokens', 'scores', 'token_type')
    )
    if not len(pieces) == len(scores) == len(types):
      raise ValueError(
        f'{len(pieces)} tokens, {len(scores)} scores and {len(types)} types.'
      )
    # llama.cpp's converter fills up to the rows of the embedding, so that a
    # Gemma 3 of 4B has 63 more tokens in its file than in its tokenizer.
    size = len(pieces)
    while size and types[size - 1] == _TYPES.UNUSED:
      if pieces[size - 1] != f'[PAD{size - 1}]':
        break
      size -= 1
    self.pieces, self.scores = pieces[:size], scores[:size]
    by_name = _NO_TEXT if metadata['model'] == 'llama' else ()
    self.types = [
      _TYPES.CONTROL if piece in by_name else kind
      for piece, kind in zip(self.pieces, types)
    ]
    self.ids = {
      'unk': metadata.get('unknown_token_id', 2),
      'bos': metadata.get('bos_token_id', self._named('<bos>')),
      'eos': metadata.get('eos_token_id', self._named('<eos>', '</s>')),
      'pad': metadata.get('padding_token_id', -1),
    }
    found = {f'a {key}': metadata.get(key) for key in _END_KEYS}
    ends = {key: at for key, at in found.items() if at is not None}
    for name, at in (self.ids | ends).items():
      # Only the unknown token has to be there.
      if not (0 if name == 'unk' else -1) <= at < size:
        raise ValueError(f'{name} is token {at} of {size}.')
    self.ends = tuple(at for at in ends.values() if at >= 0)
    no_text = (_TYPES.CONTROL, _TYPES.UNUSED)
    self.special = {i for i, kind in enumerate(self.types) if kind in no_text}

  def _named(self, *names: str) -> int:
    """Where the metadata do not say which it is."""
    return next((self.pieces.index(n) for n in names if n in self.pieces), -1)


# Of a turn, as of an instruction-tuned Gemma, and of a message.
_END_KEYS = ('eot_token_id', 'eom_token_id')


def _sentencepiece(
  metadata: _Metadata, tokens: _Tokens, model_type: int
) -> Any:
  model, ids = sentencepiece_proto.ModelProto(), tokens.ids
  named = model_type == sentencepiece_proto.TrainerSpec.BPE
  of_each = zip(tokens.pieces, tokens.scores, tokens.types)
  for i, (piece, score, kind) in enumerate(of_each):
    # Runs of spaces are stored as such, others as SentencePiece has them.
    piece = piece.replace(' ', '\u2581')
    if i == ids['unk']:
      # Whatever the file says: the library asks for exactly one.
      kind = _TYPES.UNKNOWN
    elif kind == _TYPES.UNKNOWN:
      kind = _TYPES.NORMAL
    elif kind == _TYPES.CONTROL and named and i not in ids.values():
      # '<start_of_turn>': Gemma's own tokenizer.model finds it in a text,
      # which it would not as a control token.
      kind = _TYPES.USER_DEFINED
    model.pieces.add(piece=piece, score=score, type=kind)
  trainer = model.trainer_spec
  trainer.model_type = model_type
  trainer.vocab_size = len(tokens.pieces)
  trainer.byte_fallback = _TYPES.BYTE in tokens.types
  for name, at in ids.items():
    setattr(trainer, f'{name}_id', at)
    if at >= 0:
      setattr(trainer, f'{name}_piece', tokens.pieces[at])
  normalizer = model.normalizer_spec
  normalizer.name = 'identity'
  normalizer.add_dummy_prefix = bool(metadata.get('add_space_prefix', True))
  normalizer.remove_extra_whitespaces = bool(
    metadata.get('remove_extra_whitespaces', False)
  )
  normalizer.escape_whitespaces = True
  charsmap = metadata.get('precompiled_charsmap')
  if charsmap:
    normalizer.precompiled_charsmap = bytes(x & 255 for x in charsmap)
  return model
