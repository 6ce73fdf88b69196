"""Records that commands write and read back: JSON of a schema, one object a file or a line."""
