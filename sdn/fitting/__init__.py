"""How an SDN comes to be: currents by law, simulated neurons, the fit, its refinement, reduction and card.

Everything a trained network needs stands one floor up, in :mod:`sdn`, which imports nothing from here.
"""
