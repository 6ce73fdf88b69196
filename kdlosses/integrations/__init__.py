"""The losses inside other people's trainers: a module each, imported on demand, whose framework is an extra."""
