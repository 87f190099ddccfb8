"""The tasks from Debian's package descriptions, registered with seqio.

`debian_en_de` translates single sentences and synopses, `debian_synopsis`
writes the line that stands for a description of up to 1,000 characters, and
the mixture `debian` is both, for one model that serves both.
"""

from __future__ import annotations

import functools

import seqio

from speccascade_jax.data import metrics
from speccascade_jax.data import preprocessors
from speccascade_jax.data import source
from speccascade_jax.data import vocabulary

# T5's own words for the two tasks. Each is one piece of the vocabulary.
PREFIXES = {
  'debian_en_de': 'translate English to German: ',
  'debian_synopsis': 'summarize: ',
}
METRICS = {
  'debian_en_de': [metrics.bleu, metrics.chrf],
  'debian_synopsis': [metrics.rouge],
}

for _name, _prefix in PREFIXES.items():
  seqio.TaskRegistry.add(
    _name,
    source=source.CorpusDataSource(_name),
    preprocessors=[
      functools.partial(preprocessors.text_to_text, prefix=_prefix),
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      # After the trim, so that a text cut short still ends.
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      name: seqio.Feature(vocabulary.debian(), add_eos=True)
      for name in ('inputs', 'targets')
    },
    metric_fns=METRICS[_name],
  )

# In equal parts, although there are half as many translations as synopses:
# translations have twice the tokens to predict.
seqio.MixtureRegistry.add('debian', list(PREFIXES), default_rate=1.0)
