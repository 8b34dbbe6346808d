"""Static analysis of compiled programs: memory, FLOPs, HBM traffic, collectives and a roofline.

Nothing here runs a program or needs the hardware: every figure is derived from optimized HLO that
was compiled ahead of time.
"""
