"""The Gaussians: the record of activated tensors that all rooms exchange, and the raw parameters that training changes.

`state` is the record; `model` owns the parameters, whose number of rows may change; `init` and `build` say where they
start; `edits` adds, removes and moves Gaussians together with their optimiser moments; `density` decides when.
"""
