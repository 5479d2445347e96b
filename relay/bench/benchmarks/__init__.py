"""The benchmarks, one module each: options, figures and runs."""
