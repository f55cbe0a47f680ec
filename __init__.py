"""fusioncharger: dispenser-side driver for Huawei FusionCharge DC power units.

The repository root is this package. README.md says how to run it, docs/ how it works.
"""

__version__ = "0.1.0"
