"""The configuration of an experiment: `schema` defines the settings, `load` reads files and command lines."""
