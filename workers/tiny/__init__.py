"""The bundled tiny models: real diffusers folders, small enough for a CPU and a repository."""
