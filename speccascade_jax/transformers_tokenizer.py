"""A vocabulary as transformers reads it, for checkpoints that leave.

transformers builds the tokenizer of a Gemma from a SentencePiece model of byte
pairs by itself. Of a unigram model it does so with T5's settings alone, without
bytes and without pieces of several words, so that one is written as a
tokenizer.json here.
"""

from __future__ import annotations

import pathlib
from typing import Any

from sentencepiece import sentencepiece_model_pb2
import tokenizers

from speccascade_jax import marks
from speccascade_jax import vocabulary as vocabularies

# Generated code, which type checkers cannot see into.
sentencepiece_proto: Any = sentencepiece_model_pb2

_SPACE = '\u2581'


def save(folder: pathlib.Path, framing: vocabularies.Framing) -> None:
  """Writes a tokenizer that frames texts alike, in place of one there.

  Raises:
    ValueError: if transformers has no such tokenizer.
  """
  words = framing.vocabulary
  for name in vocabularies.FILES:
    (folder / name).unlink(missing_ok=True)
  path = words.save(folder)
  kind = 'PreTrainedTokenizerFast'
  if path.suffix == '.model':
    model = sentencepiece_proto.ModelProto.FromString(path.read_bytes())
    model_type, trainer = model.trainer_spec.model_type, model.trainer_spec
    if model_type == trainer.BPE and not model.normalizer_spec.add_dummy_prefix:
      kind = 'GemmaTokenizer'
    elif model_type == trainer.UNIGRAM:
      # Beside it for other programs, under T5's name.
      path.rename(folder / 'spiece.model')
      path = folder / 'tokenizer.json'
      _of_unigram(model, framing).save(str(path))
    else:
      raise ValueError(
        'The vocabulary is a SentencePiece model of type '
        f'{trainer.ModelType.Name(model_type)} with add_dummy_prefix='
        f'{model.normalizer_spec.add_dummy_prefix}, which transformers has no '
        'tokenizer for.'
      )
  marks.write_json(
    folder / marks.TOKENIZER_CONFIG,
    {
      **words.names(),
      'tokenizer_class': kind,
      'add_bos_token': framing.bos_first,
      'add_eos_token': not framing.bos_first,
      'clean_up_tokenization_spaces': False,
    },
  )


def _of_unigram(
  model: Any, framing: vocabularies.Framing
) -> tokenizers.Tokenizer:
  """The same pieces, scores and treatment of spaces."""
  trainer, spec = model.trainer_spec, model.normalizer_spec
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.Unigram(
      [(piece.piece, piece.score) for piece in model.pieces],
      unk_id=trainer.unk_id,
      byte_fallback=trainer.byte_fallback,
    )
  )
  steps: list[Any] = []
  if spec.precompiled_charsmap:
    steps.append(tokenizers.normalizers.Precompiled(spec.precompiled_charsmap))
  if spec.remove_extra_whitespaces:
    for spaces, one in (('^ +| +$', ''), (' {2,}', ' ')):
      regex = tokenizers.Regex(spaces)
      steps.append(tokenizers.normalizers.Replace(regex, one))
  tokenizer.normalizer = tokenizers.normalizers.Sequence(steps)
  # Whole texts, for a piece may hold several words.
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
    replacement=_SPACE,
    prepend_scheme='always' if spec.add_dummy_prefix else 'never',
    split=False,
  )
  decoders = tokenizers.decoders
  back = [
    decoders.Replace(_SPACE, ' '),
    decoders.ByteFallback(),
    decoders.Fuse(),
  ]
  if spec.add_dummy_prefix:
    back.append(decoders.Strip(' ', 1, 0))
  tokenizer.decoder = decoders.Sequence(back)
  kind = sentencepiece_proto.ModelProto.SentencePiece
  tokenizer.add_special_tokens(
    [
      piece.piece
      for piece in model.pieces
      if piece.type in (kind.CONTROL, kind.UNKNOWN)
    ]
  )
  words = framing.vocabulary
  bos_id = words.bos_id if framing.bos_first else None
  around = words.eos_id if bos_id is None else bos_id
  name = words.piece(around)
  tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
    single=f'$A {name}' if bos_id is None else f'{name} $A',
    special_tokens=[(name, around)],
  )
  return tokenizer
