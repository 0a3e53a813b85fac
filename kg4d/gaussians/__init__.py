"""The Gaussians: the record of activated tensors that the whole package uses, and the raw parameters behind it.

`state` is the record; `model` owns the parameters, whose number of rows may change; `init` and `build` choose where
they start; `edits` adds, removes and moves Gaussians together with their optimiser moments; `kg4d.stages.density`
decides when.
"""
