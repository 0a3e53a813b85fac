"""Deformations: canonical Gaussians and times in, moved geometry out. Every one is the identity at birth.

A new one is a subclass of `base.Deformation`, an arm in `build`, and an entry in the contract test.
Its weights never depend on the number of Gaussians, so that density control need not touch them.
"""
