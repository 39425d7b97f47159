"""The command `csiemu`: emulation of gNB and UEs as processes, training, evaluation, benchmarks."""
