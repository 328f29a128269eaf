"""What is stored of runs: checkpoints, the log, what a run did to whom and wrote itself, and which data is due."""
