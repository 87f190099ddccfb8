"""A stand-in: T5X imports AirIO, and asks only whether a task is of it."""
