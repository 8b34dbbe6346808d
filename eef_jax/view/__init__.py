"""A run in the terminal: its tasks, an expert's attempt as a chain of states, trained tokens.

`tasks` lists, `chain` shows one task as the paper's Figure 1, `tokens` what is trained on; each
makes renderables of rich from what `report` reads, `screen` is where they are printed.
"""
