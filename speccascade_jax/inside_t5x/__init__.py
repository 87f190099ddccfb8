"""Speculative cascades as a model of T5X, for its own infer.py and eval.py.

T5X is an optional requirement (the extra `t5x`), and this is the one folder
that imports it; nothing else of the package imports this folder. It is named in
gin files, see `configs/t5x/`.
"""
