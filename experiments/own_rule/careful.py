"""A deferral rule of one's own: all that there is to write."""

from speccascade_jax import deferral


def careful_diff(q, p, q_conf, p_conf, alpha, *, least=0.5):
  """`Diff`, but also defers wherever the drafter is not at least `least` sure.

  Args:
    q: `[..., V]` the drafter's distribution, scaled by temperature.
    p: `[..., V]` the verifier's.
    q_conf: `[..., V]` the drafter's, unscaled.
    p_conf: `[..., V]` the verifier's.
    alpha: scalar; larger trusts the drafter more.
    least: a parameter of the rule's own, set in gin.
  """
  confidence = q_conf.max(-1)
  defer = (confidence < least) | (confidence < p_conf.max(-1) - alpha)
  return deferral.mix(q, p, defer)
