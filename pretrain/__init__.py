"""How the nano bases in `eef_jax/bases` were pretrained; not part of the installed package.

A nano base plays the part of the paper's pretrained LLM: it can read before it is taught to act.
`python -m pretrain.main` trains one on generated reading exercises, `python -m pretrain.probe`
measures what it has learned.
"""
