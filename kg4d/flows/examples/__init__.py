"""Flows whose answer is known, each as one run: a table of errors and pictures.

The first four are examples of Jin, Liu, Li, Wu, Ye, Zha and Zhou's work on parametrized flows, with their constants.
"""
