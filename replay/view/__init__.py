"""The picture of a log: one HTML file, which needs nothing else (`fusioncharger view`).

Log ──► drawing.py: every turn, replayed ──► timeline.py: bands, curves, markers ──► page.py ──► report.html
                                         └─► turns.py: input, outputs, state diff ──►
"""
