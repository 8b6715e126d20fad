"""One file per model family, each a StepPipeline on stock diffusers components."""
