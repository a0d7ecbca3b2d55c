"""The fields of a study file, each typed and checked by itself."""
