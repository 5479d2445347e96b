"""The programs that make load, each run as a process, and what they measure beside the relay."""
