"""Small index files in the true format, for the builder of the corpora."""

from experiments.corpora import fetch


def write(folder, texts):
  """Writes name -> text below a new `folder`; the index made of them."""
  folder.mkdir()
  for name, text in texts.items():
    (folder / name).write_text(text, encoding='utf-8')
  return fetch.Index(*(folder / name for name in texts))
