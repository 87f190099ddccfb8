"""The tasks from Debian's package descriptions, registered with seqio.

`debian_en_de` translates single sentences and synopses, `debian_synopsis`
writes the line that stands for a description of up to 1,000 characters, and
the mixture `debian` is both, for one model that serves both.
`debian_continuation` goes on with such a description behind its first words,
for models that know language in general.
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


def _add(name, corpus, preprocessor, metric_fns) -> None:
  seqio.TaskRegistry.add(
    name,
    source=source.CorpusDataSource(corpus),
    preprocessors=[
      preprocessor,
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      # After the trim, so that a text cut short still ends.
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      feature: seqio.Feature(vocabulary.debian(), add_eos=True)
      for feature in ('inputs', 'targets')
    },
    metric_fns=metric_fns,
  )


for _name, _prefix in PREFIXES.items():
  _add(
    _name,
    _name,
    functools.partial(preprocessors.text_to_text, prefix=_prefix),
    METRICS[_name],
  )

# In equal parts, although there are half as many translations as synopses:
# translations have twice the tokens to predict.
seqio.MixtureRegistry.add('debian', list(PREFIXES), default_rate=1.0)

# Eight words say what is described; one text in 150 has no more.
_add(
  'debian_continuation',
  'debian_synopsis',
  functools.partial(preprocessors.continuation, words=8),
  [metrics.rouge],
)
