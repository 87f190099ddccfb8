"""Naive float64 Python, written from the equations; imports no package code."""
