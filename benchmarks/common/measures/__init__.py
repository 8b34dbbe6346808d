"""Measures of the form of a checkout: structure, sizes, comments, names and language.

`python -m benchmarks.common.measures [REPO] [--list]` prints them as a table, with the places that
each one counts below it. Files are read as text and syntax trees and the project is never imported,
so one version of these measures reads any version of the tree. They inform and do not gate: the
exit code is 0 whatever they find.
"""
