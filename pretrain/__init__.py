"""The pretrained nano base: its tokenizer, its reading exercises, and the script that made it.

It plays the part that a pretrained LLM plays in the paper: something that can read before it is
taught to act. It is made once by `python -m pretrain.main` and ships as
`eef_jax/bases/webshop`.
"""
