"""What a compiled program will cost: memory, work, traffic and a roofline, from its own HLO.

Nothing here runs a program: everything is read from what the compiler made, for chips that need not
be at hand.
"""
