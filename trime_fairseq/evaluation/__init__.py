"""What is measured: losses of models with memories, in fairseq-eval-lm and in Python."""
