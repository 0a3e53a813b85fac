"""The configuration of an experiment: `schema` says what there is to set, `load` reads files and command lines."""
