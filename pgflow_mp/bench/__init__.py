"""The bundled benchmark: ``python -m pgflow_mp bench``."""
