"""A stand-in: T5X lists Amos, an optimizer, among those it can wrap."""
