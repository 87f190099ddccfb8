"""How numbers are stored in GGUF files, and what is read of them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from speccascade_jax.checkpoints import gguf_file

_KINDS = [
  gguf.GGMLQuantizationType.F16,
  gguf.GGMLQuantizationType.BF16,
  gguf.GGMLQuantizationType.Q8_0,
  gguf.GGMLQuantizationType.Q4_0,
  gguf.GGMLQuantizationType.Q4_1,
  gguf.GGMLQuantizationType.Q5_0,
  gguf.GGMLQuantizationType.Q5_1,
]


@pytest.mark.parametrize('kind', _KINDS, ids=lambda k: k.name)
def test_quantised_rows_are_read_in_any_parts(kind, tmp_path):
  rng = np.random.default_rng(0)
  matrix = rng.normal(size=(5, 64)).astype(np.float32)
  blocks = gguf.quants.quantize(matrix, kind)
  writer = gguf.GGUFWriter(str(tmp_path / 'x.gguf'), 'gemma3')
  writer.add_tensor('a', rng.normal(size=(3,)).astype(np.float32))
  writer.add_tensor('m', blocks, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.File(tmp_path / 'x.gguf')
  assert file.shapes == {'a': (3,), 'm': (5, 64)}
  expected = gguf.quants.dequantize(blocks, kind)
  np.testing.assert_array_equal(file.read('m'), expected)
  np.testing.assert_array_equal(file.read('m', 1, 4), expected[1:4])
  assert np.abs(expected - matrix).max() < 0.4


# What ggml-quants.c makes of a block of 256 numbers, one at a time. Nothing
# here writes k-quants; any bytes are some block.


def _half(data):
  return float(np.frombuffer(bytes(data), '<f2')[0])


def _scale_and_least(packed, n):
  """The n-th pair of 6-bit numbers in twelve bytes (`get_scale_min_k4`)."""
  if n < 4:
    return packed[n] & 63, packed[n + 4] & 63
  low, high = packed[n + 4], packed[n - 4]
  return (low & 15) | (high >> 6) << 4, (low >> 4) | (packed[n] >> 6) << 4


def _q4_k(block):  # d, dmin, scales[12], qs[128]
  d, dmin, packed, qs = (
    *map(_half, (block[:2], block[2:4])),
    block[4:16],
    block[16:],
  )
  for n in range(256):
    scale, least = _scale_and_least(packed, n // 32)
    byte = qs[n // 64 * 32 + n % 32]
    yield d * scale * (byte >> 4 if n // 32 % 2 else byte & 15) - dmin * least


def _q5_k(block):  # d, dmin, scales[12], qh[32], qs[128]
  d, dmin, packed = _half(block[:2]), _half(block[2:4]), block[4:16]
  qh, qs = block[16:48], block[48:]
  for n in range(256):
    scale, least = _scale_and_least(packed, n // 32)
    byte = qs[n // 64 * 32 + n % 32]
    low = byte >> 4 if n // 32 % 2 else byte & 15
    high = qh[n % 32] >> n // 32 & 1
    yield d * scale * (low | high << 4) - dmin * least


def _q6_k(block):  # ql[128], qh[64], scales[16] (signed), d
  ql, qh, scales = block[:128], block[128:192], block[192:208]
  d = _half(block[208:])
  for n in range(256):
    half, at = divmod(n, 128)
    quarter, i = divmod(at, 32)
    byte = ql[half * 64 + quarter % 2 * 32 + i]
    low = byte >> 4 if quarter > 1 else byte & 15
    high = qh[half * 32 + i] >> 2 * quarter & 3
    scale = int(np.int8(np.uint8(scales[n // 16])))
    yield d * scale * ((low | high << 4) - 32)


@pytest.mark.parametrize(
  ('kind', 'numbers'), [('Q4_K', _q4_k), ('Q5_K', _q5_k), ('Q6_K', _q6_k)]
)
def test_k_quants_are_read_as_ggml_does(kind, numbers, tmp_path):
  kind = gguf.GGMLQuantizationType[kind]
  size = gguf.GGML_QUANT_SIZES[kind][1]
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 256, (3, 2 * size), np.uint8)
  # The factors: halves of any bytes might be no numbers.
  factors = rng.normal(size=(3, 2, 2)).astype('<f2').view(np.uint8)
  at = [208] if kind.name == 'Q6_K' else [0, 2]
  for row in range(3):
    for block in range(2):
      for n, offset in enumerate(at):
        begin = block * size + offset
        blocks[row, begin : begin + 2] = factors[row, block, 2 * n : 2 * n + 2]
  path = tmp_path / 'x.gguf'
  writer = gguf.GGUFWriter(str(path), 'gemma3')
  writer.add_tensor('m', blocks, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.File(path)
  assert file.shapes == {'m': (3, 512)}
  expected = [
    [x for i in (0, size) for x in numbers(row[i : i + size].tolist())]
    for row in blocks
  ]
  np.testing.assert_allclose(file.read('m'), expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(file.read('m', 1, 3), file.read('m')[1:])
