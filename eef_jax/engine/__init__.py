"""The rollout engine: samples continuations of token ids with a paged, prefix-shared KV cache.

`engine.Engine` is its public API. Operates on token ids only; text lives in `text/`.
"""
