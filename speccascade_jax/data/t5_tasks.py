"""The paper's tasks for T5, which it fine-tunes and evaluates on.

Sources, in T5's manner, with a prefix that names the task; T5's vocabulary,
which is loaded when a batch is made and not when a pair, which has its own, is
evaluated. The data sets are TFDS's, in its own splits; what the paper
evaluates on is their validation split:

  wmt14_en_de     newstest2013, 3,000 pairs; `test` is newstest2014
  xsum            11,305 articles, those of TFDS's `xsum`, not GEM's selection
  cnn_dailymail   13,368 articles
"""

from __future__ import annotations

import functools

import seqio

from speccascade_jax.data import metrics
from speccascade_jax.data import prepared
from speccascade_jax.data import preprocessors
from speccascade_jax.data import vocabulary

SPLITS = ('train', 'validation', 'test')
WMT14 = prepared.TfdsSource('wmt14_translate/de-en', SPLITS)
XSUM = prepared.TfdsSource(
  'xsum',
  SPLITS,
  # The BBC's articles may not be passed on.
  first='xsum-extracts-from-downloads.tar.gz, which the scripts of '
  'https://github.com/EdinburghNLP/XSum make, goes into '
  'downloads/manual of that folder',
)
CNN_DAILYMAIL = prepared.TfdsSource('cnn_dailymail', SPLITS)

# Name -> (source, its keys of source and target, prefix, metrics).
_TASKS = {
  'wmt14_en_de': (
    WMT14,
    ('en', 'de'),
    'translate English to German: ',
    [metrics.bleu],
  ),
  'xsum': (
    XSUM,
    ('document', 'summary'),
    'summarize: ',
    [metrics.rouge],
  ),
  'cnn_dailymail': (
    CNN_DAILYMAIL,
    ('article', 'highlights'),
    'summarize: ',
    [metrics.rouge],
  ),
}

for _name, (_source, (_from, _to), _prefix, _metrics) in _TASKS.items():
  seqio.TaskRegistry.add(
    _name,
    source=_source,
    preprocessors=[
      functools.partial(
        seqio.preprocessors.rekey, key_map={'source': _from, 'target': _to}
      ),
      functools.partial(preprocessors.text_to_text, prefix=_prefix),
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      name: seqio.Feature(vocabulary.t5(), add_eos=True)
      for name in ('inputs', 'targets')
    },
    metric_fns=_metrics,
  )
