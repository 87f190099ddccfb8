"""Checkpoints in T5X's layout, by the libraries that T5X writes them with.

And by T5X itself, where it is.
"""

from __future__ import annotations

import re

from etils import epath
from flax import serialization
from flax import traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from speccascade_jax.checkpoints import errors
from speccascade_jax.checkpoints import huggingface
from speccascade_jax.checkpoints import load
from speccascade_jax.checkpoints import orbax_models
from speccascade_jax.checkpoints import t5x
from speccascade_jax.checkpoints import tensorstore_source
from tests.checkpoints import huggingface_test
from tests.checkpoints import sources
from tests.t5x import importing

GOLDENS = huggingface_test.GOLDENS
_LAYER = re.compile(r'(encoder|decoder)/layers_(\d+)/(.*)')


def tensors_of(name):
  """The parameters of a golden folder by name, '/' between the parts."""
  _, params = huggingface.load(GOLDENS / name, dtype='float32')
  return {
    '/'.join(k.key for k in keys): np.asarray(value)
    for keys, value in jax.tree_util.tree_leaves_with_path(params)
  }


def scanned(tensors):
  """As `scalable_t5` has them: axes of layers, behind the first, and heads."""
  heads = len(tensors['encoder/relpos_bias/rel_embedding'])
  stacks, found = {}, {}
  for name, value in tensors.items():
    match = _LAYER.fullmatch(name)
    if match is not None:
      stack, layer, rest = match.groups()
      if rest.endswith('/out/kernel'):
        value = value.reshape(heads, -1, value.shape[-1])
      elif 'attention/' in rest:
        value = value.reshape(value.shape[0], heads, -1)
      stacks.setdefault(f'{stack}/{stack}/{rest}', {})[int(layer)] = value
    elif 'relpos_bias' not in name:
      found[name] = value
  for stack in ('encoder', 'decoder'):
    depth = len(stacks[f'{stack}/{stack}/mlp/wo/kernel'])
    bias = tensors[f'{stack}/relpos_bias/rel_embedding']
    for layer in range(depth):
      name = f'{stack}/{stack}/relpos_bias/rel_embedding'
      stacks.setdefault(name, {})[layer] = bias
  for name, layers in stacks.items():
    ordered = [layers[i] for i in range(len(layers))]
    found[name] = np.stack(ordered, axis=1)
  return found


def nested(tensors):
  tree = {}
  for name, value in tensors.items():
    *parents, last = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return tree


def write(folder, tensors, old=False):
  """What T5X's Checkpointer leaves; `old`: of tensorstore before 0.1.14."""
  folder.mkdir(parents=True)
  leaves = {}
  for name, value in tensors.items():
    if value.ndim == 1 and 'decoder_norm' in name:
      leaves[name] = value  # Not partitioned: kept in the index itself.
      continue
    path = f'target/{name}'.replace('/', '.')
    chunks = [max(1, -(-n // 2)) for n in value.shape]
    metadata = {'compressor': {'id': 'gzip'}, 'chunks': chunks}
    spec = {
      'driver': 'zarr',
      'dtype': value.dtype.name,
      'kvstore': {'driver': 'file', 'path': f'{folder / path}'},
      'metadata': metadata | {'shape': list(value.shape)},
    }
    ts.open(spec, create=True).result().write(value).result()
    spec['kvstore']['path'] = path
    if old:
      spec['kvstore'] = {'driver': 'gcs', 'bucket': 't5x-dummy-bucket'}
      spec['path'] = path
    leaves[name] = spec
  state = {'target': nested(leaves), 'state': {'step': np.int32(7)}}
  (folder / 'checkpoint').write_bytes(
    serialization.msgpack_serialize({'version': 3, 'optimizer': state})
  )
  return folder


def write_orbax(folder, tensors, **options):
  """What T5X's OrbaxCheckpointManagerInterface leaves of a step."""
  manager = ocp.CheckpointManager(folder, options=None)
  tree = {'target': nested(tensors), 'state': {'step': np.int32(7)}}
  manager.save(7, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
  manager.wait_until_finished()
  manager.close()
  return folder / '7'


def write_by_t5x(folder, tensors, **options):
  """What T5X leaves of a model of its own; skips where there is no T5X."""
  importing.require()
  from tests.t5x import steps

  config = t5x.config_of(sources.Arrays(tensors))
  return steps.save(folder, config, nested(tensors), **options)


_WRITERS = {
  't5x': write,
  't5x, old': lambda folder, tensors: write(folder, tensors, old=True),
  't5x, scanned': lambda folder, tensors: write(folder, scanned(tensors)),
  'orbax': write_orbax,
  'orbax, scanned': lambda folder, tensors: write_orbax(
    folder, scanned(tensors)
  ),
  't5x, by T5X': write_by_t5x,
  't5x, scanned, by T5X': lambda folder, tensors: write_by_t5x(
    folder, scanned(tensors)
  ),
  'orbax, by T5X': lambda folder, tensors: write_by_t5x(
    folder, tensors, orbax=True
  ),
  'orbax, scanned, by T5X': lambda folder, tensors: write_by_t5x(
    folder, scanned(tensors), orbax=True
  ),
}


@pytest.mark.parametrize('name', ['hf_t5_v1_0', 'hf_t5_v1_1'])
@pytest.mark.parametrize('writer', _WRITERS)
def test_a_checkpoint_computes_what_the_folder_does(writer, name, tmp_path):
  path = _WRITERS[writer](tmp_path / 'checkpoint_7', tensors_of(name))
  checkpoint = load.load(path, dtype='float32')
  assert load.config_of(path) == checkpoint.config
  assert checkpoint.format == writer.split(',')[0]
  assert checkpoint.config == huggingface.load(GOLDENS / name)[0]
  huggingface_test.assert_computes_as_expected(
    checkpoint.config, checkpoint.params, GOLDENS / name
  )


def test_the_arrays_of_a_step_may_be_named_themselves(tmp_path):
  path = write_orbax(tmp_path / 'manager', tensors_of('hf_t5_v1_1'))
  assert load.format_of(path / 'state') == 'orbax'
  assert orbax_models.item(epath.Path(path)) == epath.Path(path / 'state')


@pytest.mark.parametrize('are_scanned', [True, False])
def test_biases_that_differ_between_layers_are_those_of_layers(
  are_scanned, tmp_path
):
  """As `scalable_t5` trains them, and umT5 without scanned layers."""
  tensors = scanned(tensors_of('hf_t5_v1_1'))
  name = '{0}/{0}/relpos_bias/rel_embedding'
  tensors[name.format('decoder')][:, 1] += 1
  biases = {s: tensors[name.format(s)] for s in ('encoder', 'decoder')}
  own = {
    f'{stack}/layers_{i}/relpos_bias/rel_embedding': bias[:, i]
    for stack, bias in biases.items()
    for i in range(bias.shape[1])
  }
  if not are_scanned:
    tensors = own | {
      k: v for k, v in tensors_of('hf_t5_v1_1').items() if 'relpos' not in k
    }
  checkpoint = load.load(write(tmp_path / 'checkpoint_7', tensors))
  assert checkpoint.config.relative_attention_per_layer
  loaded = traverse_util.flatten_dict(checkpoint.params, sep='/')
  assert {k for k in loaded if 'relpos' in k} == set(own)
  for name, bias in own.items():
    np.testing.assert_array_equal(loaded[name], bias)
  with pytest.raises(errors.CheckpointError, match='not written for Hugging'):
    huggingface.save(tmp_path, checkpoint.config, checkpoint.params)


def test_a_scanned_tensor_is_read_once_for_all_layers():
  tensors = scanned(tensors_of('hf_t5_v1_1'))
  source = sources.Arrays(tensors)
  t5x.read(source, None, lambda name, value: value)
  read = [name for name, _ in source.noted if 'relpos_bias' not in name]
  assert sorted(read) == sorted(k for k in tensors if 'relpos' not in k)


# Gemma.


def gemma_tensors(name, turned):
  """A golden Gemma under the names and in the shapes that were published."""
  config, _ = huggingface.load(GOLDENS / name)
  return published_gemma(config, tensors_of(name), turned)


def published_gemma(config, flat, turned):
  """The same of any parameters; `turned`: as behind the first Gemma."""
  found = {}
  emb_dim, head_dim = config.emb_dim, config.head_dim

  def heads(kernel):  # [E, H D] to [H, E, D]
    return kernel.reshape(emb_dim, -1, head_dim).swapaxes(0, 1)

  found['embedder/input_embedding'] = flat['token_embedder/embedding']
  found['final_norm/scale'] = flat['decoder/final_norm/scale']
  norms = {
    'pre_attention_norm': 'pre_attention_norm',
    'post_attention_norm': 'post_attention_norm',
    'pre_ffw_norm': 'pre_mlp_norm',
    'post_ffw_norm': 'post_mlp_norm',
    'attn/_query_norm': 'attention/query_norm',
    'attn/_key_norm': 'attention/key_norm',
  }
  for i in range(config.num_layers):
    here, there = f'decoder/layers_{i}', f'layer_{i}'
    query, key, value = (
      heads(flat[f'{here}/attention/{n}/kernel'])
      for n in ('query', 'key', 'value')
    )
    found[f'{there}/attn/q_einsum/w'] = query
    found[f'{there}/attn/kv_einsum/w'] = np.stack([key, value])
    found[f'{there}/attn/attn_vec_einsum/w'] = flat[
      f'{here}/attention/out/kernel'
    ].reshape(-1, head_dim, emb_dim)
    gating = np.stack([flat[f'{here}/mlp/wi_{n}/kernel'] for n in (0, 1)])
    gating = gating.swapaxes(1, 2) if turned else gating
    found[f'{there}/mlp/gating_einsum/w'] = gating
    found[f'{there}/mlp/linear/w'] = flat[f'{here}/mlp/wo/kernel']
    for theirs, ours in norms.items():
      if f'{here}/{ours}/scale' in flat:
        found[f'{there}/{theirs}/scale'] = flat[f'{here}/{ours}/scale']
  return found


def images(style):
  """What a Gemma 3 of 4B and more has besides the text, made tiny.

  Names from google-deepmind/gemma (`_checkpoint.py`, `_compat.py`) and from
  transformers' converter of Orbax checkpoints.
  """
  root = 'vision_encoder' if style == 'nested' else 'SigLiPFromPatches_0'
  encoder = f'{root}/siglip_encoder'
  block = f'{encoder}/Transformer/encoderblock_0'
  names = [
    'embedder/mm_input_embedding_extra',
    'embedder/mm_output_embedding',
    'embedder/mm_input_projection/w',
    'embedder/mm_soft_embedding_norm/scale',
    f'{encoder}/pos_embedding',
    f'{encoder}/embedding/kernel',
    f'{block}/LayerNorm_0/scale',
    f'{block}/MlpBlock_0/Dense_0/bias',
    f'{block}/MultiHeadDotProductAttention_0/query/kernel',
    f'{encoder}/Transformer/encoder_norm/scale',
  ]
  return {name: np.zeros((2, 2), np.float32) for name in names}


def write_gemma(folder, tensors, style):
  if style in ('flat', 'trained further'):
    above = 'rlx_networks/policy_network/' if style != 'flat' else ''
    tree = {}
    for name, value in tensors.items():
      parent, _, last = name.rpartition('/')
      root = '' if name.startswith('SigLiP') else 'transformer/'
      tree.setdefault(f'{above}{root}{parent}', {})[last] = value
  elif style == 'bare':
    # Without a `w`, where a parameter is no module of its own.
    tree = nested({k.removesuffix('/w'): v for k, v in tensors.items()})
  else:
    tree = {'transformer': nested(tensors)}
  ocp.PyTreeCheckpointer(use_ocdbt=style != 'nested').save(folder, tree)
  return folder


def stacked(tensors, turns):
  """Layers of the same kind in one array, where kinds take turns."""
  found, layers = {}, {}
  for name, value in tensors.items():
    match = re.fullmatch(r'layer_(\d+)/(.*)', name)
    if match is None:
      found[name] = value
      continue
    layer = int(match[1])
    kind = f'stacked_layers/attention_type_{layer % turns}/{match[2]}'
    layers.setdefault(kind, {})[layer // turns] = value
  for name, values in layers.items():
    found[name] = np.stack([values[i] for i in range(len(values))])
  return found


@pytest.mark.parametrize('style', ['nested', 'flat', 'bare', 'trained further'])
@pytest.mark.parametrize(
  ('name', 'turned'),
  [('hf_gemma_1', False), ('hf_gemma_2', True), ('hf_gemma_3', True)],
)
def test_a_published_gemma_computes_what_the_folder_does(
  name, turned, style, tmp_path
):
  tensors = gemma_tensors(name, turned)
  if name == 'hf_gemma_3':
    tensors |= images(style)
  path = write_gemma(tmp_path / 'gemma', tensors, style)
  checkpoint = load.load(path, dtype='float32')
  assert load.config_of(path) == checkpoint.config
  assert checkpoint.format == 'orbax'
  config = huggingface.load(GOLDENS / name)[0]
  sizes = ('emb_dim', 'num_layers', 'num_heads', 'num_kv_heads', 'mlp_dim')
  for field in (*sizes, 'vocab_size', 'head_dim', 'use_qk_norm'):
    assert getattr(checkpoint.config, field) == getattr(config, field), field
  # The tiny folder's window and scale are no published ones.
  huggingface_test.assert_computes_as_expected(
    config, checkpoint.params, GOLDENS / name
  )


@pytest.mark.parametrize('turns', [1, 2, 6])
def test_layers_in_one_array_are_taken_apart(turns, tmp_path):
  """Also where their number is no multiple of the kinds': 34 of 6 in the 4B."""
  golden, tensors = gemma_tensors('hf_gemma_3', True), {}
  for name, value in golden.items():
    match = re.fullmatch(r'layer_0/(.*)', name)
    for layer in range(8) if match else ():
      tensors[f'layer_{layer}/{match[1]}'] = value + layer
    if not name.startswith('layer_'):
      tensors[name] = value
  apart = load.load(write_gemma(tmp_path / 'apart', tensors, 'flat'))
  found = load.load(
    write_gemma(tmp_path / 'stacked', stacked(tensors, turns), 'flat')
  )
  assert found.config == apart.config and found.config.num_layers == 8
  jax.tree.map(np.testing.assert_array_equal, found.params, apart.params)


def test_an_array_of_layers_is_read_once_for_all(tmp_path, monkeypatch):
  noted = []
  read = tensorstore_source.Arrays.read

  def note(source, name, *rows):
    noted.append(name)
    return read(source, name, *rows)

  monkeypatch.setattr(tensorstore_source.Arrays, 'read', note)
  tensors = stacked(gemma_tensors('hf_gemma_2', True), 1)
  load.load(write_gemma(tmp_path / 'stacked', tensors, 'flat'))
  assert sorted(noted) == sorted(k.removesuffix('/w') for k in tensors)


def test_one_layer_too_many_of_something_is_named(tmp_path):
  tensors = stacked(gemma_tensors('hf_gemma_2', True), 1)
  name = 'stacked_layers/attention_type_0/mlp/linear/w'
  layers = len(tensors[name])
  tensors[name] = np.concatenate([tensors[name], tensors[name][:1]])
  path = write_gemma(tmp_path / 'long', tensors, 'flat')
  with pytest.raises(
    errors.CheckpointError, match=f'of no use layer_{layers}/mlp/linear'
  ):
    load.load(path)


def test_more_stacked_layers_than_there_can_be_are_refused(tmp_path):
  tensors = gemma_tensors('hf_gemma_1', False)
  name = 'stacked_layers/attention_type_999/attn/q_einsum/w'
  tensors[name] = np.zeros((2, 4), np.float32)
  path = write_gemma(tmp_path / 'many', tensors, 'flat')
  with pytest.raises(errors.CheckpointError, match='of more than 1000 layers'):
    load.load(path)
  tensors = gemma_tensors('hf_gemma_1', False)
  tensors |= {k: v for k, v in stacked(tensors, 1).items() if '_0/attn' in k}
  path = write_gemma(tmp_path / 'twice', tensors, 'flat')
  with pytest.raises(errors.CheckpointError, match='has layer_0/attn/.* twice'):
    load.load(path)


def test_queries_keys_and_values_in_one_array_are_taken_apart(tmp_path):
  """As in Gemma 1 7B, whose heads of keys are as many as those of queries."""
  rng = np.random.default_rng(0)
  tensors = gemma_tensors('hf_gemma_1', turned=False)
  together = {}
  for i in range(2):
    tensors.pop(f'layer_{i}/attn/kv_einsum/w')
    query = tensors.pop(f'layer_{i}/attn/q_einsum/w')
    together[i] = rng.normal(size=(3, *query.shape)).astype(np.float32)
    tensors[f'layer_{i}/attn/qkv_einsum/w'] = together[i]
  path = write_gemma(tmp_path / 'gemma', tensors, 'nested')
  checkpoint = load.load(path)
  assert checkpoint.config.num_kv_heads == checkpoint.config.num_heads == 2
  attention = checkpoint.params['decoder']['layers_1']['attention']
  for n, name in enumerate(('query', 'key', 'value')):
    expected = together[1][n].swapaxes(0, 1).reshape(8, -1)
    np.testing.assert_array_equal(attention[name]['kernel'], expected)


# Broken ones.


def _remove(folder, name):
  for file in (folder / name).rglob('*'):
    if file.is_file():
      file.unlink()


def _reindex(folder, change):
  path = folder / 'checkpoint'
  content = serialization.msgpack_restore(path.read_bytes())
  change(content)
  path.write_bytes(serialization.msgpack_serialize(content))


_EMBEDDING = 'target.token_embedder.embedding'
_BREAKS = {
  'cut index': (
    lambda f: (f / 'checkpoint').write_bytes(
      (f / 'checkpoint').read_bytes()[:300]
    ),
    'no index of T5X',
  ),
  'no target': (
    lambda f: _reindex(f, lambda c: c['optimizer'].pop('target')),
    'has no optimizer/target',
  ),
  'no array': (
    lambda f: _remove(f, _EMBEDDING),
    'token_embedder/embedding cannot be opened',
  ),
  'outside': (
    lambda f: _reindex(
      f,
      lambda c: c['optimizer']['target']['token_embedder'].update(
        embedding={'driver': 'zarr', 'kvstore': {'path': '../../x'}}
      ),
    ),
    'neither an array nor the place of one',
  ),
  'a chunk': (
    lambda f: (f / _EMBEDDING / '0.0').write_bytes(b'no gzip'),
    'token_embedder/embedding cannot be read',
  ),
  'another model': (
    lambda f: _reindex(
      f, lambda c: c['optimizer']['target'].pop('token_embedder')
    ),
    'is not a T5 of T5X: it has no token_embedder',
  ),
  'half a model': (
    lambda f: _reindex(
      f, lambda c: c['optimizer']['target']['encoder'].pop('encoder_norm')
    ),
    'missing encoder/encoder_norm/scale',
  ),
}


@pytest.mark.parametrize('name', _BREAKS)
def test_a_broken_checkpoint_ends_in_one_clear_error(name, tmp_path):
  path = write(tmp_path / 'checkpoint_7', tensors_of('hf_t5_v1_1'))
  do, message = _BREAKS[name]
  do(path)
  with pytest.raises(errors.CheckpointError, match=message) as error:
    load.load(path)
  assert str(path) in str(error.value)


def test_orbax_of_another_model_is_refused(tmp_path):
  tree = {'params': {'dense': {'kernel': np.zeros((2, 2))}}}
  ocp.PyTreeCheckpointer().save(tmp_path / 'x', tree)
  with pytest.raises(errors.CheckpointError, match='not a T5 of .*dense/ker'):
    load.load(tmp_path / 'x')


def test_orbax_without_its_arrays_is_refused(tmp_path):
  path = write_gemma(
    tmp_path / 'x', gemma_tensors('hf_gemma_1', False), 'nested'
  )
  _remove(path, 'transformer.embedder.input_embedding')
  with pytest.raises(errors.CheckpointError, match='has no metadata|be opened'):
    load.load(path)
